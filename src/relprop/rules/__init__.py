"""Rules: small frozen values that say how one operation passes relevance back to its inputs."""

from relprop.rules.activation import BetaSmooth, Deconvnet, GuidedBackprop
from relprop.rules.base import Layer, Rule, WeightedRule, Windows
from relprop.rules.general import Block, Native, Pass, Zero, ZeroBias
from relprop.rules.pooling import Proportional
from relprop.rules.proportional import AlphaBeta, Epsilon, Gamma, ZPlus
from relprop.rules.sequences import Constant, Gate, ScanConstants, Temperature
from relprop.rules.unproportional import Flat, WSquare, ZBox

__all__ = [
    "AlphaBeta",
    "BetaSmooth",
    "Block",
    "Constant",
    "Deconvnet",
    "Epsilon",
    "Flat",
    "Gamma",
    "Gate",
    "GuidedBackprop",
    "Layer",
    "Native",
    "Pass",
    "Proportional",
    "Rule",
    "ScanConstants",
    "Temperature",
    "WSquare",
    "WeightedRule",
    "Windows",
    "ZBox",
    "ZPlus",
    "Zero",
    "ZeroBias",
]

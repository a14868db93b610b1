"""Composites: which rule acts where."""

from relprop.composites.composite import Composite
from relprop.composites.named import (
    NAMES,
    beta_smooth,
    by_name,
    deconvnet,
    deep_taylor,
    epsilon,
    epsilon_alpha2_beta1,
    epsilon_alpha2_beta1_flat,
    epsilon_gamma_box,
    epsilon_plus,
    epsilon_plus_flat,
    excitation_backprop,
    gamma_flat,
    gradient,
    guided_backprop,
    zero,
)
from relprop.composites.places import Place, first, last, operation, path, where

__all__ = [
    "NAMES",
    "Composite",
    "Place",
    "beta_smooth",
    "by_name",
    "deconvnet",
    "deep_taylor",
    "epsilon",
    "epsilon_alpha2_beta1",
    "epsilon_alpha2_beta1_flat",
    "epsilon_gamma_box",
    "epsilon_plus",
    "epsilon_plus_flat",
    "excitation_backprop",
    "first",
    "gamma_flat",
    "gradient",
    "guided_backprop",
    "last",
    "operation",
    "path",
    "where",
    "zero",
]

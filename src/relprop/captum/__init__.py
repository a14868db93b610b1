"""The interface of captum's LRP on relprop's engine: change the import, keep the rest.

    from relprop.captum import LRP, GammaRule      # was: from captum.attr import LRP

docs/captum.md says where the numbers differ from captum's, and why. captum itself is not needed.
"""

from relprop.captum.default_rules import SUPPORTED_LAYERS_WITH_RULES, SUPPORTED_NON_LINEAR_LAYERS, Addition_Module
from relprop.captum.lrp import LRP, LayerLRP
from relprop.captum.rules import Alpha1_Beta0_Rule, EpsilonRule, GammaRule, IdentityRule, PropagationRule
from relprop.captum.stabilise import Stabilise

__all__ = [
    "LRP",
    "SUPPORTED_LAYERS_WITH_RULES",
    "SUPPORTED_NON_LINEAR_LAYERS",
    "Addition_Module",
    "Alpha1_Beta0_Rule",
    "EpsilonRule",
    "GammaRule",
    "IdentityRule",
    "LayerLRP",
    "PropagationRule",
    "Stabilise",
]

"""Composites: which rule acts where."""

from relprop.composites.composite import Composite
from relprop.composites.named import (
    NAMES,
    attnlrp,
    attnlrp_gamma,
    beta_smooth,
    by_name,
    cp_lrp,
    deconvnet,
    deep_taylor,
    epsilon,
    epsilon_alpha2_beta1,
    epsilon_alpha2_beta1_flat,
    epsilon_gamma_box,
    epsilon_plus,
    epsilon_plus_flat,
    excitation_backprop,
    gamma,
    gamma_box,
    gamma_flat,
    gradient,
    guided_backprop,
    lstm,
    mamba_lrp,
    relp,
    zero,
)
from relprop.composites.places import Place, acting, first, last, operation, path, where
from relprop.signatures import public

for _name, _make in list(NAMES.items()):
    NAMES[_name] = globals()[_name] = public(f"relprop.composites.{_name}")(_make)

__all__ = [
    "NAMES",
    "Composite",
    "Place",
    "acting",
    "attnlrp",
    "attnlrp_gamma",
    "beta_smooth",
    "by_name",
    "cp_lrp",
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
    "gamma",
    "gamma_box",
    "gamma_flat",
    "gradient",
    "guided_backprop",
    "last",
    "lstm",
    "mamba_lrp",
    "operation",
    "path",
    "relp",
    "where",
    "zero",
]

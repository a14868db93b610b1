"""The operations: one file per family. Each registers its operations with the engine."""

from relprop.operations import (  # noqa: F401
    activations,
    adaptive_norms,
    affine,
    attention,
    batch_norm,
    bounds,
    convolutions,
    experts,
    families,
    flex_attention,
    followed_functions,
    gates,
    ids,
    linear,
    lookup,
    losses,
    matrices,
    normalisation,
    opaque,
    pooling,
    products,
    quantised,
    recurrent,
    reductions,
    refused,
    scan,
    silent,
    solvers,
    statistics,
    steps,
    structure,
    triangular,
)
from relprop.operations.register_table import table

__all__ = ["table"]

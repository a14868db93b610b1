"""The operations: one file per family, each registering what it knows in the engine's table."""

from relprop.operations import (  # noqa: F401
    activations,
    affine,
    attention,
    batch_norm,
    experts,
    gates,
    lookup,
    normalisation,
    opaque,
    pooling,
    products,
    recurrent,
    refused,
    scan,
    silent,
    statistics,
    structure,
    triangular,
    visible,
    weighted,
)

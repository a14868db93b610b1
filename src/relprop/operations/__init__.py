"""The operations: one file per family, each registering what it knows in the engine's table."""

from relprop.operations import (  # noqa: F401
    activations,
    attention,
    batch_norm,
    experts,
    lookup,
    normalisation,
    opaque,
    pooling,
    products,
    recurrent,
    refused,
    scan,
    silent,
    structure,
    triangular,
    visible,
    weighted,
)

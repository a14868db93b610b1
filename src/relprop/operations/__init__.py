"""The operations: one file per family, each registering what it knows in the engine's table."""

from relprop.operations import (  # noqa: F401
    activations,
    attention,
    batch_norm,
    lookup,
    normalisation,
    pooling,
    products,
    refused,
    silent,
    structure,
    weighted,
)

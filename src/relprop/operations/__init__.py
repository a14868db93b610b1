"""The operations: one file per family, each registering what it knows in the engine's table."""

from relprop.operations import (  # noqa: F401
    activations,
    attention,
    batch_norm,
    distributed,
    experts,
    flex_attention,
    lookup,
    normalisation,
    pooling,
    products,
    quantised,
    recurrent,
    refused,
    silent,
    structure,
    weighted,
)

"""Attribution graphs: which hidden units passed relevance to which, as books that balance.

Relevance is taken from one node to the next: a backward pass starts at a node, and where it meets another node, its part
is read and goes no further. So the weight of an edge is direct relevance, and each node's relevance is the sum of what it
passes on plus what was absorbed on the way (by biases, stabilisers, softmax and norms).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from relprop.attribution.conditions import Condition, Units
from relprop.attribution.opened import opened
from relprop.attribution.points import modules_of, named
from relprop.attribution.settings import Settings
from relprop.attribution.splices import Splice, parts_of, splices_of
from relprop.composites import Composite
from relprop.concepts.graph import AttributionGraph
from relprop.concepts.tracing import Tracer
from relprop.engine.eager import step_by_step
from relprop.errors import InputError
from relprop.signatures import public
from relprop.trees import batch_of


@step_by_step
@public("relprop.graph")
def graph(
    model: Any,
    inputs: Any,
    target: Any = None,
    *,
    nodes: Any,
    keep: int | float = 60,
    composite: Composite | str = "auto",
    tokens: Sequence[str] | None = None,
    fold_first: bool | None = None,
    seed: float | Tensor | None = None,
    select: Any = None,
    labels: Sequence[str] | None = None,
    forward_args: Sequence[Any] = (),
    forward_kwargs: dict[str, Any] | None = None,
    splices: Splice | Sequence[Splice] | None = None,
) -> AttributionGraph:
    """The attribution graph of one score: direct relevance from node to node, from the score down to the inputs.

    Args:
        model: a module.
        inputs: one sample, with the axis of samples.
        target: which output, as in `attribute`; a `Contrast` to ask why this and not that.
        nodes: a list of `relprop.units`, or paths. Units with an index are one node. Others are a node for each entry of
            the first axis (channels, tokens, features), heads and latents one for each head or latent and token; `units(...).each(0, 1)` makes
            a node of each entry along other axes, such as the neurons of each token.
        keep: how many of the hidden nodes with the most relevance the graph keeps; a number below 1 keeps the strongest that
            have this share of the sum of their sizes. Relevance passes through the others.
        composite: the rules. With `cp_lrp` nothing is absorbed by attention; `attnlrp` has edges into queries and keys.
        tokens: names of the positions.
        fold_first: whether nodes at the first position are left out, so that relevance passes through them. Attention of
            language models rests there. None: where the inputs are ids.
        seed: the relevance to start from instead of the score.
        select: what to explain of an output that is not a tensor.
        labels: names of the classes.
        forward_args: further positional arguments of the model.
        forward_kwargs: further keyword arguments.
        splices: autoencoders or transcoders in layers, whose latents and errors are then nodes.

    Returns:
        A `AttributionGraph` with the score, the kept nodes and the inputs.

    Raises:
        InputError: nodes overlap, are off the way from the inputs to the score, or more than 5,000; the inputs are
            several samples.
        RelpropError: as in `attribute`.

    References:
        Ameisen et al. 2025, "Circuit tracing: revealing computational graphs in language models"; Achtibat et al. 2023
        for graphs of relevance.
    """
    if batch_of(inputs) != 1:
        raise InputError(
            f"a graph is of one sample; got a batch of {batch_of(inputs)}. Take one at a time, inputs[:1]."
        )
    if isinstance(keep, bool) or not isinstance(keep, (int, float)) or keep <= 0:
        raise InputError(f"keep must be a number of nodes, or a share between 0 and 1; got {keep!r}.")
    spliced = splices_of(model, splices)
    chosen = [_units(model, one, parts_of(spliced)) for one in _listed(nodes)]
    settings = Settings(composite=composite, select=select, labels=labels)
    modules = modules_of(model, chosen, parts_of(spliced))
    with opened(
        model,
        inputs,
        target,
        settings,
        modules,
        seed=seed,
        forward_args=forward_args,
        forward_kwargs=forward_kwargs,
        splices=spliced,
    ) as state:
        return Tracer(state, chosen, keep, tokens, fold_first).graph()


def _listed(nodes: Any) -> Sequence[Any]:
    if isinstance(nodes, (str, Condition)) or not isinstance(nodes, (list, tuple)) or not nodes:
        raise InputError(f"nodes must be a list of units or paths, such as [relprop.units('blocks.3')]; got {nodes!r}.")
    return nodes


def _units(model: Any, given: Any, parts: Any) -> Units:
    one = (
        named(model, Units(given) if isinstance(given, str) else given, parts)
        if isinstance(given, (str, Condition))
        else None
    )
    if not isinstance(one, Units):
        raise InputError(f"a node is units of one layer, such as relprop.units('blocks.3')[4]; got {given!r}.")
    return one

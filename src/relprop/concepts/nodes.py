"""The nodes of an attribution graph."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class GraphNode:
    """One node.

    Attributes:
        name: its name.
        kind: "score", "unit" or "input".
        layer: the path of its layer.
        index: its place in what the layer gives for one sample.
        position: its position in a sequence, if it has one.
        depth: 0 for inputs; larger nearer to the score.
        relevance: its relevance.
        activation: the sum of its units' numbers; the score itself for the score.
        absorbed: the relevance that neither a node nor an input below it received.
        rest: the relevance that went to nodes which were pruned.
    """

    name: str
    kind: str
    layer: str
    index: tuple[int, ...]
    position: int | None
    depth: int
    relevance: float
    activation: float
    absorbed: float = 0.0
    rest: float = 0.0

    def absorbing(self, amount: float) -> GraphNode:
        """The node with what it absorbs."""
        return replace(self, absorbed=amount)

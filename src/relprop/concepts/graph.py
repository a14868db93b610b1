"""An attribution graph as a value: nodes, edges, and what is done with them."""

from __future__ import annotations

import heapq
import itertools
import tempfile
import webbrowser
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

from relprop.concepts.nodes import GraphNode
from relprop.errors import InputError
from relprop.results.files.atomic import write
from relprop.signatures import public


@dataclass
class AttributionGraph:
    """An attribution graph. Each node's relevance is the sum of its edges, plus what it absorbed, plus the rest.

    Attributes:
        nodes: the score first, then hidden nodes from the top, then the inputs.
        edges: (source, target, weight): direct relevance of the source from the target, by numbers of nodes.
        subject: what was explained, in words.
        tokens: names of the positions.
        composite: the name of the composite.
        model: the model, in words.
        notices: what its reader should know.
    """

    nodes: list[GraphNode]
    edges: list[tuple[int, int, float]]
    subject: str = "the output"
    tokens: list[str] = field(default_factory=list)
    composite: str = ""
    model: str = ""
    notices: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.nodes)

    @property
    def score(self) -> float:
        """The explained score."""
        return self.nodes[0].activation

    @property
    def absorbed(self) -> float:
        """The relevance of the score that reached no input: the sum of what all nodes absorbed."""
        return sum(node.absorbed + node.rest for node in self.nodes if node.kind != "input")

    def below(self, number: int) -> list[tuple[int, float]]:
        """The edges from a node down, strongest first."""
        return sorted(((s, w) for s, t, w in self.edges if t == number), key=lambda one: -abs(one[1]))

    def above(self, number: int) -> list[tuple[int, float]]:
        """The edges into a node from above, strongest first."""
        return sorted(((t, w) for s, t, w in self.edges if s == number), key=lambda one: -abs(one[1]))

    def number(self, name: str | int) -> int:
        """The number of a node, by its name.

        Raises:
            InputError: there is no such node.
        """
        if isinstance(name, int) and not isinstance(name, bool) and -len(self) <= name < len(self):
            return name % len(self)
        names = [node.name for node in self.nodes]
        if name not in names:
            from difflib import get_close_matches

            near = get_close_matches(str(name), names, 3)
            raise InputError(f"there is no node {name!r} among {len(names)}.{f' Did you mean {near}?' if near else ''}")
        return names.index(str(name))

    @public(".prune")
    def prune(self, keep: int | float = 0.8, edges: int | float | None = None) -> AttributionGraph:
        """A smaller graph that still balances: relevance that goes to pruned nodes counts as `rest`.

        Args:
            keep: how many hidden nodes to keep, or the share of the sum of their sizes. The score and the inputs stay.
            edges: likewise for edges; None keeps all edges between kept nodes.

        Raises:
            InputError: a number is not above 0.
        """
        sizes = {n: abs(node.relevance) for n, node in enumerate(self.nodes) if node.kind == "unit"}
        stay = _strongest(sizes, keep, "keep") | {n for n, node in enumerate(self.nodes) if node.kind != "unit"}
        linked = [e for e in self.edges if e[0] in stay and e[1] in stay]
        if edges is not None:
            strong = _strongest({n: abs(w) for n, (_, _, w) in enumerate(linked)}, edges, "edges")
            linked = [e for n, e in enumerate(linked) if n in strong]
        return self._with(stay, linked)

    @public(".subgraph")
    def subgraph(self, node: str | int) -> AttributionGraph:
        """The part of the graph from which relevance comes to a node, and to which it goes."""
        at = self.number(node)
        stay = (
            {at, 0}
            | _closure(at, [(t, s) for s, t, _ in self.edges])
            | _closure(at, [(s, t) for s, t, _ in self.edges])
        )
        return self._with(stay, [e for e in self.edges if e[0] in stay and e[1] in stay])

    def _with(self, stay: set[int], linked: list[tuple[int, int, float]]) -> AttributionGraph:
        order = sorted(stay)
        new = {n: i for i, n in enumerate(order)}
        had: dict[int, float] = {}
        has: dict[int, float] = {}
        for found, some in ((had, self.edges), (has, linked)):
            for _, t, w in some:
                found[t] = found.get(t, 0.0) + w
        nodes = [replace(self.nodes[n], rest=self.nodes[n].rest + had.get(n, 0.0) - has.get(n, 0.0)) for n in order]
        return replace(self, nodes=nodes, edges=[(new[s], new[t], w) for s, t, w in linked])

    @public(".paths")
    def paths(self, most: int = 10) -> list[tuple[float, list[int]]]:
        """The strongest walks from the score to the inputs: their relevance, and the numbers of their nodes.

        A walk's relevance is the score's, times the share of each edge in its upper node. If each node is one unit, that
        is exactly the relevance of the walk. The search is best-first and exact: no stronger walk exists.

        Raises:
            InputError: `most` is not a positive int.
        """
        if not isinstance(most, int) or isinstance(most, bool) or most < 1:
            raise InputError(f"most must be a positive int; got {most!r}.")
        lower: dict[int, list[tuple[int, float]]] = {}
        for s, t, w in self.edges:
            if self.nodes[t].relevance:
                lower.setdefault(t, []).append((s, w / self.nodes[t].relevance))
        best = self._largest(lower)
        ticket = itertools.count()
        queue: list[tuple[float, int, float, list[int]]] = []
        if best[0]:
            first = self.nodes[0].relevance
            queue.append((-abs(first) * best[0], next(ticket), first, [0]))
        found: list[tuple[float, list[int]]] = []
        while queue and len(found) < most:
            _, _, value, walk = heapq.heappop(queue)
            if self.nodes[walk[-1]].kind == "input":
                found.append((value, walk))
                continue
            for s, share in lower.get(walk[-1], ()):
                bound = abs(value * share) * best[s]
                if bound > 0:
                    heapq.heappush(queue, (-bound, next(ticket), value * share, [*walk, s]))
        return found

    def _largest(self, lower: dict[int, list[tuple[int, float]]]) -> list[float]:
        """For each node the largest product of shares on a walk from it to an input."""
        best = [1.0 if node.kind == "input" else 0.0 for node in self.nodes]
        for n in sorted(range(len(self)), key=lambda n: self.nodes[n].depth):
            for s, share in lower.get(n, ()):
                best[n] = max(best[n], abs(share) * best[s])
        return best

    def table(self, most: int = 20) -> str:
        """The strongest hidden nodes with their relevance, what they absorbed, and their strongest edge."""
        rows = [(n, node) for n, node in enumerate(self.nodes) if node.kind == "unit"]
        rows = [(0, self.nodes[0]), *sorted(rows, key=lambda one: -abs(one[1].relevance))[:most]]
        width = max(len(node.name) for _, node in rows)
        lines = [f"{'':<{width}}  relevance  absorbed  strongest source"]
        for n, node in rows:
            source = self.below(n)
            said = f"{self.nodes[source[0][0]].name} {source[0][1]:+.4f}" if source else ""
            lines.append(f"{node.name:<{width}}  {node.relevance:+9.4f} {node.absorbed + node.rest:+9.4f}  {said}")
        return "\n".join(lines)

    def drawing(self, most: int = 300) -> Any:
        """The graph as a drawing: positions from left to right, depth upwards. At most `most` edges are drawn."""
        from relprop.rendering.graph import draw

        return draw(
            [(n.name, n.kind, n.position, n.depth, n.relevance, n.absorbed + n.rest) for n in self.nodes],
            self.edges,
            self.tokens,
            most,
        )

    def to_svg(self) -> str:
        """The drawing as SVG."""
        svg: str = self.titled_drawing().to_svg()
        return svg

    def to_html(self) -> str:
        """A page with the drawing, and tables of nodes and of the strongest walks. It needs no server and no network."""
        from relprop.concepts.graph_files import html

        return html(self)

    def titled_drawing(self) -> Any:
        """The drawing under its title and its numbers."""
        from relprop.rendering.drawing import framed, titled

        lines = [f"score {self.score:.4g}, absorbed {self.absorbed:.4g}; {self.composite}", *self.notices]
        return framed(titled(self.drawing(), self.subject, lines=lines))

    def show(self) -> None:
        """The page, in a notebook; elsewhere in a browser."""
        from relprop.results.show import in_notebook

        if in_notebook():
            from IPython.display import HTML, display

            display(HTML(self.to_svg()))
            return
        with tempfile.NamedTemporaryFile(
            "w", prefix="relprop-", suffix=".html", delete=False, encoding="utf-8"
        ) as file:
            file.write(self.to_html())
        webbrowser.open(Path(file.name).as_uri())

    @public(".save")
    def save(self, path: str | PathLike[str]) -> None:
        """Writes the graph: `.json` (the format of circuit-tracer and Neuronpedia), `.graphml`, `.dot`, `.csv` (edges),
        `.svg`, `.png` or `.html`.

        Raises:
            InputError: the suffix is none of these.
        """
        from relprop.concepts.graph_files import WRITERS

        place = Path(path)
        if place.suffix.lower() not in WRITERS:
            raise InputError(f"a graph is saved as {', '.join(WRITERS)}; got {str(path)!r}.")
        write(place, WRITERS[place.suffix.lower()](self))

    def __repr__(self) -> str:
        hidden = sum(node.kind == "unit" for node in self.nodes)
        head = (
            f"Graph of {self.subject}: {hidden} hidden nodes, {len(self.edges)} edges; score {self.score:.4g}, absorbed "
            f"{self.absorbed:.4g}; {self.composite}"
        )
        return f"{head}\n{self.table(5)}"


def _strongest(sizes: dict[int, float], keep: int | float, name: str) -> set[int]:
    """The keys with the largest sizes: so many, or until they have this share of the sum."""
    if isinstance(keep, bool) or not isinstance(keep, (int, float)) or not keep > 0:
        raise InputError(f"{name} must be a number, or a share between 0 and 1; got {keep!r}.")
    order = sorted(sizes, key=lambda n: (-sizes[n], n))
    if isinstance(keep, int) or keep > 1:
        return set(order[: int(keep)])
    total, running, found = sum(sizes.values()), 0.0, set()
    for n in order:
        if running >= keep * total:
            break
        found.add(n)
        running += sizes[n]
    return found


def _closure(start: int, arrows: Iterable[tuple[int, int]]) -> set[int]:
    """All that can be reached from a number."""
    following: dict[int, list[int]] = {}
    for a, b in arrows:
        following.setdefault(a, []).append(b)
    stack, seen = [start], set()
    while stack:
        for n in following.get(stack.pop(), ()):
            if n not in seen:
                seen.add(n)
                stack.append(n)
    return seen

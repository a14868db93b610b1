"""A layered drawing of a graph: positions from left to right, depth upwards, edges as thick as their relevance."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from relprop.rendering.colours import hexadecimal, ink_on
from relprop.rendering.drawing import Drawing
from relprop.rendering.fonts import fit, width
from relprop.rendering.marks import FAINT, INK, LINE, SMALL, Line, Mark, Rect, Text

Node = tuple[str, str, "int | None", int, float, float]
"""Name, kind, position, depth, relevance, and what was absorbed."""
Edge = tuple[int, int, float]

BOX, TALL, GAP, STEP = 132.0, 34.0, 12.0, 74.0


def draw(nodes: Sequence[Node], edges: Sequence[Edge], tokens: Sequence[str] = (), most: int = 300) -> Drawing:
    """Draws nodes and their strongest edges.

    Args:
        nodes: the nodes.
        edges: (source, target, weight), by numbers of nodes.
        tokens: names of the positions.
        most: how many edges are drawn, the strongest.

    Returns:
        A drawing; hovering over a node shows its numbers.
    """
    linked = {n for s, t, _ in edges for n in (s, t)}
    shown = [n for n, node in enumerate(nodes) if node[1] != "input" or n in linked]
    places, wide, high = _layout(nodes, shown)
    largest = max((abs(nodes[n][4]) for n in shown), default=0.0) or 1.0
    strongest = sorted(edges, key=lambda e: -abs(e[2]))[:most]
    heaviest = max((abs(w) for _, _, w in strongest), default=0.0) or 1.0
    marks: list[Mark] = []
    for s, t, w in reversed(strongest):
        (x0, y0), (x1, y1) = places[s], places[t]
        part = abs(w) / heaviest
        colour = hexadecimal((0.25 + 0.75 * part) * (1 if w > 0 else -1))
        marks.append(Line(_curve(x0 + BOX / 2, y0, x1 + BOX / 2, y1 + TALL), colour, 0.6 + 4.4 * part))
    for n in shown:
        name, kind, _, _, relevance, absorbed = nodes[n]
        x, y = places[n]
        share = relevance / largest
        said = f"{name}: relevance {relevance:+.4g}" + (f", absorbed {absorbed:+.4g}" if kind != "input" else "")
        marks.append(Rect(x, y, BOX, TALL, hexadecimal(share), INK if kind == "score" else LINE, said))
        ink = ink_on(share)
        marks.append(Text(x + BOX / 2, y + 4, _short(name), SMALL, ink, "middle"))
        marks.append(Text(x + BOX / 2, y + 18, f"{relevance:+.3g}", SMALL, ink, "middle"))
    if len(edges) > len(strongest):
        marks.append(Text(0, high + 4, f"{len(edges) - len(strongest)} weaker edges are not drawn", SMALL, FAINT))
        high += 20
    return Drawing(wide, high, tuple(marks), f"A graph of {len(shown)} nodes and {len(strongest)} edges.")


def _layout(nodes: Sequence[Node], shown: Sequence[int]) -> tuple[dict[int, tuple[float, float]], float, float]:
    """The left upper corner of each node, and the size of the drawing.

    Nodes of one depth and position stand above each other in rows of their own; without positions they stand side by side.
    """
    depths = sorted({nodes[n][3] for n in shown})
    cells: defaultdict[tuple[int, int | None], list[int]] = defaultdict(list)
    for n in shown:
        cells[nodes[n][3], nodes[n][2]].append(n)
    columns = sorted({p for _, p in cells if p is not None})
    beside: dict[int | None, int] = {
        p: min(4, max(len(some) for (_, q), some in cells.items() if q == p)) for p in columns
    }
    across: dict[int | None, float] = {}
    side = 0.0
    for column in columns:
        across[column] = side
        side += beside[column] * (BOX + GAP) + GAP
    widest = max((len(some) for (_, p), some in cells.items() if p is None), default=0)
    room = max(side if columns else 0.0, 0.0) + (min(widest, 10) * (BOX + GAP) if widest else 0.0)
    places: dict[int, tuple[float, float]] = {}
    y = 0.0
    for depth in reversed(depths):
        rows = 1
        for (d, p), some in cells.items():
            if d != depth:
                continue
            ordered = sorted(some, key=lambda n: -abs(nodes[n][4]))
            if p is None:
                per = 10
                start = side if columns else max(0.0, (room - min(len(some), per) * (BOX + GAP)) / 2)
                for i, n in enumerate(ordered):
                    places[n] = start + (i % per) * (BOX + GAP), y + (i // per) * (TALL + GAP)
                rows = max(rows, -(-len(some) // per))
            else:
                first = across[p] + (beside[p] - min(len(some), beside[p])) * (BOX + GAP) / 2
                for i, n in enumerate(ordered):
                    places[n] = first + (i % beside[p]) * (BOX + GAP), y + (i // beside[p]) * (TALL + GAP)
                rows = max(rows, -(-len(some) // beside[p]))
        y += rows * (TALL + GAP) - GAP + (STEP - TALL)
    return places, max(room - GAP, BOX), max(y - (STEP - TALL), TALL)


def _curve(x0: float, y0: float, x1: float, y1: float) -> tuple[tuple[float, float], ...]:
    """Points of a curve that leaves a node upwards and enters the other from below."""
    bend = max(18.0, abs(y1 - y0) / 2)
    found = []
    for i in range(17):
        t = i / 16
        a, b, c, d = (1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3
        found.append((a * x0 + b * x0 + c * x1 + d * x1, a * y0 + b * (y0 - bend) + c * (y1 + bend) + d * y1))
    return tuple(found)


def _short(name: str) -> str:
    """A name that fits a node: of a path, its last number and its last part."""
    path, bracket, index = name.partition("[")
    if width(name, SMALL) > BOX - 8 and "." in path:
        parts = path.replace(" (input)", "").split(".")
        numbers = [part for part in parts[:-1] if part.isdigit()]
        name = ".".join([*numbers[-1:], *parts[-1:]]) + bracket + index
    return fit(name, BOX - 8, SMALL)

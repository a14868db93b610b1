"""Files of an attribution graph for other programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from html import escape
from typing import Any, Protocol
from xml.sax.saxutils import escape as xml

from relprop.concepts.nodes import GraphNode
from relprop.rendering.html import page, table


class _StoredGraph(Protocol):
    """What files need of a graph (`concepts.graph.Graph`)."""

    nodes: list[GraphNode]
    edges: list[tuple[int, int, float]]
    subject: str
    tokens: list[str]
    composite: str
    model: str

    def __len__(self) -> int: ...
    @property
    def score(self) -> float: ...
    @property
    def absorbed(self) -> float: ...
    def below(self, number: int) -> list[tuple[int, float]]: ...
    def paths(self, most: int = 10) -> list[tuple[float, list[int]]]: ...
    def to_svg(self) -> str: ...
    def titled_drawing(self) -> Any: ...


def circuit(graph: _StoredGraph) -> dict[str, Any]:
    """The graph in the JSON format of circuit-tracer's viewer and of Neuronpedia.

    Hidden nodes are "cross layer transcoder" features there, with what they are in `clerp`; the inputs are embeddings and
    the score is a logit. `influence` is the share in the sum of the nodes' sizes, counted up from the strongest, as their
    viewer expects. Books and names are kept under `metadata.info`.
    """
    last = max((node.position or 0 for node in graph.nodes), default=0)
    tokens = graph.tokens or [str(i) for i in range(last + 1)]
    order = sorted(range(len(graph)), key=lambda n: -abs(graph.nodes[n].relevance))
    total, running, influence = sum(abs(node.relevance) for node in graph.nodes) or 1.0, 0.0, {}
    for n in order:
        running += abs(graph.nodes[n].relevance) / total
        influence[n] = running
    ids = [_identity(graph, n) for n in range(len(graph))]
    nodes = [
        {
            "node_id": ids[n],
            "feature": n,
            "layer": ids[n].split("_")[0],
            "ctx_idx": node.position if node.position is not None else last,
            "feature_type": {"score": "logit", "input": "embedding"}.get(node.kind, "cross layer transcoder"),
            "token_prob": 0.0,
            "is_target_logit": node.kind == "score",
            "run_idx": 0,
            "reverse_ctx_idx": 0,
            "jsNodeId": "-".join(ids[n].rsplit("_", 1)),
            "clerp": graph.subject if node.kind == "score" else node.name,
            "influence": min(influence[n], 1.0),
            "activation": node.activation,
        }
        for n, node in enumerate(graph.nodes)
    ]
    return {
        "metadata": {
            "slug": "relprop",
            "scan": graph.model,
            "transcoder_list": [],
            "prompt_tokens": tokens,
            "prompt": "".join(tokens) if graph.tokens else "",
            "node_threshold": 1.0,
            "schema_version": 1,
            "info": {
                "made_by": "relprop",
                "composite": graph.composite,
                "score": graph.score,
                "absorbed": {
                    ids[n]: node.absorbed + node.rest for n, node in enumerate(graph.nodes) if node.kind != "input"
                },
            },
        },
        "qParams": {"pinnedIds": [], "supernodes": [], "linkType": "both", "clickedId": "", "sg_pos": ""},
        "nodes": nodes,
        "links": [{"source": ids[s], "target": ids[t], "weight": w} for s, t, w in graph.edges],
    }


def _identity(graph: _StoredGraph, n: int) -> str:
    """Layer, number and position, as circuit-tracer names nodes."""
    node = graph.nodes[n]
    position = node.position if node.position is not None else 0
    layer = "E" if node.kind == "input" else str(node.depth - (node.kind == "unit"))
    return f"{layer}_{n}_{position}"


def _json(graph: _StoredGraph) -> bytes:
    return json.dumps(circuit(graph), ensure_ascii=False, allow_nan=False).encode()


_KEYS = ("name", "kind", "layer", "position", "depth", "relevance", "activation", "absorbed", "rest")


def _graphml(graph: _StoredGraph) -> bytes:
    kinds = {
        "position": "int",
        "depth": "int",
        "relevance": "double",
        "activation": "double",
        "absorbed": "double",
        "rest": "double",
    }
    keys = [f'<key id="{k}" for="node" attr.name="{k}" attr.type="{kinds.get(k, "string")}"/>' for k in _KEYS]
    keys.append('<key id="weight" for="edge" attr.name="weight" attr.type="double"/>')

    def data(node: GraphNode) -> str:
        values = ((k, getattr(node, k)) for k in _KEYS)
        return "".join(f'<data key="{k}">{xml(_plain(str(v)))}</data>' for k, v in values if v is not None)

    nodes = [f'<node id="n{n}">{data(node)}</node>' for n, node in enumerate(graph.nodes)]
    edges = [f'<edge source="n{t}" target="n{s}"><data key="weight">{w!r}</data></edge>' for s, t, w in graph.edges]
    body = "\n".join([*keys, '<graph edgedefault="directed">', *nodes, *edges, "</graph>"])
    head = '<?xml version="1.0" encoding="UTF-8"?>\n<graphml xmlns="http://graphml.graphdrawing.org/xmlns">'
    return f"{head}\n{body}\n</graphml>\n".encode()


def _plain(text: str) -> str:
    """A text without characters that XML cannot hold."""
    return "".join(
        c
        if c in "\t\n" or (ord(c) >= 32 and not 0xD800 <= ord(c) <= 0xDFFF and ord(c) not in (0xFFFE, 0xFFFF))
        else "\ufffd"
        for c in text
    )


def _dot(graph: _StoredGraph) -> bytes:
    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'

    nodes = [
        f"  n{n} [label={quoted(node.name + chr(10) + format(node.relevance, '+.4g'))}];"
        for n, node in enumerate(graph.nodes)
    ]
    edges = [f"  n{t} -> n{s} [weight={abs(w):.6g}, label={quoted(format(w, '+.3g'))}];" for s, t, w in graph.edges]
    return "\n".join(["digraph relevance {", "  rankdir=TB;", *nodes, *edges, "}", ""]).encode()


def _csv(graph: _StoredGraph) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["source", "target", "weight", "source_relevance", "target_relevance"])
    for s, t, w in graph.edges:
        writer.writerow(
            [graph.nodes[s].name, graph.nodes[t].name, w, graph.nodes[s].relevance, graph.nodes[t].relevance]
        )
    return out.getvalue().encode()


def html(graph: _StoredGraph) -> str:
    """A page: the drawing, the books of the nodes, and the strongest walks."""
    rows = [
        (
            node.name,
            f"{node.relevance:+.4f}",
            f"{sum(w for _, w in graph.below(n)):+.4f}",
            f"{node.absorbed + node.rest:+.4f}",
        )
        for n, node in enumerate(graph.nodes)
        if node.kind != "input"
    ]
    walks = [
        (f"{value:+.4f}", " ← ".join(graph.nodes[n].name for n in reversed(walk[1:])))
        for value, walk in graph.paths(10)
    ]
    body = [
        f"<h1>{escape(graph.subject)}</h1>",
        f"<p>Score {graph.score:.4g}, absorbed {graph.absorbed:.4g}. Composite {escape(graph.composite)}. "
        "Each node's relevance is what it passes on plus what was absorbed.</p>",
        f'<div style="overflow-x:auto">{graph.to_svg()}</div>',
        "<h2>Strongest walks</h2>",
        table(["relevance", "walk, from the input up"], walks, numbers=["relevance"]),
        "<h2>Nodes</h2>",
        table(["node", "relevance", "handed on", "absorbed"], rows, numbers=["relevance", "handed on", "absorbed"]),
    ]
    return page(f"Graph of {graph.subject}", "\n".join(body))


def _png(graph: _StoredGraph) -> bytes:
    out = io.BytesIO()
    graph.titled_drawing().to_image(2.0).save(out, format="PNG")
    return out.getvalue()


WRITERS: dict[str, Callable[[_StoredGraph], bytes]] = {
    ".json": _json,
    ".graphml": _graphml,
    ".dot": _dot,
    ".csv": _csv,
    ".svg": lambda graph: graph.to_svg().encode(),
    ".html": lambda graph: html(graph).encode(),
    ".png": _png,
}
"""How a graph is written, by suffix."""

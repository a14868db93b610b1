"""Attribution graphs: edges by definition, books that balance, walks, and files for other programs."""

from __future__ import annotations

import csv
import itertools
import json
import xml.etree.ElementTree as ET
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reference_concepts as concepts
import relprop
from relprop import units
from relprop.errors import CompositeError, InputError
from test_conditions import Attending, Branch, Twice, convolutional, mlp, pictures, vectors

near = partial(pytest.approx, rel=1e-9, abs=1e-12)


def balanced(graph: relprop.AttributionGraph, accuracy: float = 1e-10) -> None:
    """What a node hands on and absorbs is its relevance, and so is what comes from above."""
    size = max(abs(node.relevance) for node in graph.nodes)
    for n, node in enumerate(graph.nodes):
        if node.kind != "input":
            handed = sum(weight for _, weight in graph.below(n))
            assert abs(node.relevance - handed - node.absorbed - node.rest) <= accuracy * size
        if node.kind != "score":
            assert abs(node.relevance - sum(weight for _, weight in graph.above(n))) <= accuracy * size, node
    ends = sum(node.relevance for node in graph.nodes if node.kind == "input")
    assert abs(ends + graph.absorbed - graph.nodes[0].relevance) <= accuracy * size


def test_edges_and_walks_of_a_network_by_hand() -> None:
    net, x = mlp(), vectors(1)
    walks = concepts.walks([net[0], net[2], net[4]], x, 1)[0].detach()
    G = relprop.graph(net, x, 1, nodes=["1", "3"], keep=100, composite="zero")
    balanced(G)
    named = {node.name: n for n, node in enumerate(G.nodes)}
    weights = {(s, t): w for s, t, w in G.edges}
    h, g = net[0](x).relu()[0], net[2](net[0](x).relu()).relu()[0]
    to_second = concepts.share(net[2], h[None], 0.0)[0].detach()
    of_second = (concepts.share(net[4], g[None], 0.0)[0, :, 1] * net(x)[0, 1]).detach()
    for j, k in itertools.product(range(5), range(6)):
        expected = float(to_second[j, k] * of_second[k])
        assert weights.get((named.get(f"1[{j}]"), named.get(f"3[{k}]")), 0.0) == near(expected)
    strongest = sorted(walks.flatten().tolist(), key=lambda v: -abs(v))
    found = G.paths(12)
    assert [value for value, _ in found] == near(strongest[:12])
    value, walk = found[0]
    i, j, k = (G.nodes[n] for n in reversed(walk[1:]))
    assert float(walks[i.index[0], j.index[0], k.index[0]]) == near(value)
    every = G.paths(10_000)
    assert sum(value for value, _ in every) == near(float(walks.sum()))


def test_channels_of_a_convolutional_network() -> None:
    net, x = convolutional(), pictures(1)
    G = relprop.graph(net, x, 1, nodes=["0", "3", units("8")[[0, 1]], units("8")[2]], keep=100)
    balanced(G)
    R = relprop.attribute(net, x, 1, layers=["0", "3"])
    for node in G.nodes:
        if node.layer in ("0", "3"):
            assert node.relevance == near(float(R.layers[node.layer][0, node.index[0]].sum()))
    both = relprop.attribute(net, x, 1, through=units("3")[1] & units("0")[2] & ~units("8")[[0, 1, 2]])
    names = [node.name for node in G.nodes]
    of = {(names[s], names[t]): w for s, t, w in G.edges}
    if ("3[1]", "score") in of:  # what reaches 3[1] beside the nodes of layer 8
        beside = relprop.attribute(net, x, 1, through=units("3")[1] & ~units("8")[[0, 1, 2]])
        assert of["3[1]", "score"] == near(float(beside.values.sum() + beside.residual))
    total = relprop.attribute(net, x, 1, through=units("3")[1] & units("0")[2])
    assert of["0[2]", "3[1]"] == near(float(total.values.sum() + total.residual))
    assert float(both.values.abs().sum()) >= 0


@pytest.mark.parametrize("composite", ["attnlrp", "cp_lrp", "relp"])
@pytest.mark.parametrize("own", [True, False])
def test_heads_neurons_and_tokens(composite: str, own: bool) -> None:
    net, ids = Attending(own).double(), torch.tensor([[1, 2, 3, 4]])
    path = "attention.heads" if own else "heads"
    nodes = [path, units("table").each(0, 1)]
    if not own:
        nodes.append(units("q").each(0))
    G = relprop.graph(
        net, ids, 1, nodes=nodes, keep=100, composite=composite, tokens=["a", "b", "c", "d"], fold_first=False
    )
    balanced(G)
    assert {node.name for node in G.nodes if node.kind == "input"} == {"input a", "input b", "input c", "input d"}
    assert all(node.position in (0, 1, 2, 3) for node in G.nodes)
    folded = relprop.graph(net, ids, 1, nodes=nodes, keep=100, composite=composite)
    balanced(folded)
    assert not any(node.position == 0 for node in folded.nodes if node.kind == "unit")
    R = relprop.attribute(net, ids, 1, composite=composite, layers=path)
    heads = {node.index: node.relevance for node in G.nodes if node.layer == path}
    for (head, token), relevance in heads.items():
        assert relevance == near(float(R.layers[path][0, head, token].sum()))


def test_residual_branches_and_runs() -> None:
    net, x = Branch().double(), vectors(1)
    G = relprop.graph(net, x, 2, nodes=["f", "g", "enter"], keep=100, composite="epsilon")
    balanced(G)
    twice, (a, b) = Twice().double(), (vectors(1), vectors(1) * 0.5)
    G = relprop.graph(twice, (a, b), 1, nodes=[units("cell", run=0), units("cell", run=2)], keep=3, composite="zero")
    balanced(G)
    assert sum(node.kind == "unit" for node in G.nodes) == 3
    assert any("run 2" in node.name for node in G.nodes)


def test_a_contrast_and_seed() -> None:
    net, x = mlp(), vectors(1)
    G = relprop.graph(net, x, relprop.Contrast(0, 1), nodes=["1"], keep=3, composite="zero")
    balanced(G)
    assert G.subject == "target 0 rather than target 1"
    assert G.score == near(float((net(x)[0, 0] - net(x)[0, 1]).detach()))
    half = relprop.graph(net, x, 1, nodes=["1"], keep=3, composite="zero", seed=1.0)
    assert half.nodes[0].relevance == 1.0
    balanced(half)


def test_keep_and_prune() -> None:
    net, x = convolutional(), pictures(1)
    whole = relprop.graph(net, x, 1, nodes=["0", "3", "8"], keep=100)
    some = relprop.graph(net, x, 1, nodes=["0", "3", "8"], keep=0.5)
    hidden = [node for node in whole.nodes if node.kind == "unit"]
    assert 0 < sum(node.kind == "unit" for node in some.nodes) < len(hidden)
    balanced(some)
    pruned = whole.prune(4, edges=6)
    assert sum(node.kind == "unit" for node in pruned.nodes) == 4 and len(pruned.edges) == 6
    for n, node in enumerate(pruned.nodes):
        if node.kind != "input":
            assert node.relevance == near(sum(w for _, w in pruned.below(n)) + node.absorbed + node.rest)
    strongest = sorted((abs(node.relevance) for node in hidden), reverse=True)[:4]
    assert sorted((abs(node.relevance) for node in pruned.nodes if node.kind == "unit"), reverse=True) == strongest
    assert len(whole.prune(1.0).nodes) == len(whole.nodes)


def test_subgraph_and_numbers() -> None:
    net, x = mlp(), vectors(1)
    G = relprop.graph(net, x, 1, nodes=["1", "3"], keep=100, composite="zero")
    name = next(node.name for node in G.nodes if node.layer == "1")
    part = G.subgraph(name)
    assert {node.layer for node in part.nodes if node.kind == "unit"} == {"1", "3"}
    assert sum(node.layer == "1" for node in part.nodes) == 1
    assert G.number(name) == G.number(G.number(name)) and G.number(-1) == len(G) - 1
    with pytest.raises(InputError, match="there is no node 'nothing'"):
        G.number("nothing")


def test_files(tmp_path: Path) -> None:
    net, ids = Attending(True).double(), torch.tensor([[1, 2, 3, 4]])
    G = relprop.graph(
        net,
        ids,
        1,
        nodes=["attention.heads", units("table").each(0, 1)],
        keep=12,
        tokens=["<a>", '"b"', "c\n", "d & e"],
    )
    for suffix in ("json", "graphml", "dot", "csv", "svg", "png", "html"):
        G.save(tmp_path / f"graph.{suffix}")
    data = json.loads((tmp_path / "graph.json").read_text())
    circuit_tracer(data)
    assert len(data["nodes"]) == len(G) and len(data["links"]) == len(G.edges)
    ids_ = {node["node_id"] for node in data["nodes"]}
    assert len(ids_) == len(G) and all(link["source"] in ids_ and link["target"] in ids_ for link in data["links"])
    assert data["metadata"]["prompt_tokens"] == ["<a>", '"b"', "c\n", "d & e"]
    tree = ET.parse(tmp_path / "graph.graphml").getroot()
    space = "{http://graphml.graphdrawing.org/xmlns}"
    assert len(tree.findall(f".//{space}node")) == len(G) and len(tree.findall(f".//{space}edge")) == len(G.edges)
    networkx = pytest.importorskip("networkx")
    read = networkx.read_graphml(tmp_path / "graph.graphml")
    assert read.nodes["n0"]["relevance"] == G.nodes[0].relevance
    with (tmp_path / "graph.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["weight"]) for row in rows] == [w for _, _, w in G.edges]
    dot = (tmp_path / "graph.dot").read_text()
    assert dot.count("->") == len(G.edges) and dot.startswith("digraph")
    ET.fromstring((tmp_path / "graph.svg").read_text())
    page = (tmp_path / "graph.html").read_text()
    assert "Strongest walks" in page and "<a>" not in page and "&lt;a&gt;" in page
    assert "http:" not in page.replace("http://www.w3.org", "") and "https:" not in page
    with pytest.raises(InputError, match="a graph is saved as"):
        G.save(tmp_path / "graph.xyz")
    assert "absorbed" in repr(G) and G.nodes[0].name in G.table()


def circuit_tracer(data: dict[str, Any]) -> None:
    """The fields and types that circuit-tracer's models of its JSON ask for."""
    fields: dict[str, dict[str, Any]] = {
        "metadata": {"slug": str, "scan": str, "transcoder_list": list, "prompt_tokens": list, "prompt": str, "node_threshold": float},
        "qParams": {"pinnedIds": list, "supernodes": list, "linkType": str, "clickedId": str, "sg_pos": str},
    }  # fmt: skip
    for part, needed in fields.items():
        for name, kind in needed.items():
            assert type(data[part][name]) is kind, (part, name)
    node = {
        "node_id": str, "feature": int, "layer": str, "ctx_idx": int, "feature_type": str, "token_prob": float,
        "is_target_logit": bool, "run_idx": int, "reverse_ctx_idx": int, "jsNodeId": str, "clerp": str, "influence": float,
        "activation": float,
    }  # fmt: skip
    for one in data["nodes"]:
        assert {name: type(value) for name, value in one.items()} == node
        assert one["feature_type"] in ("logit", "embedding", "cross layer transcoder")
    for link in data["links"]:
        assert {name: type(value) for name, value in link.items()} == {"source": str, "target": str, "weight": float}


def test_errors() -> None:
    net, x = convolutional(), pictures(1)
    explain: Any = partial(relprop.graph, net, x, 1)
    for given, said in (
        ({"nodes": "0"}, "nodes must be a list"),
        ({"nodes": []}, "nodes must be a list"),
        ({"nodes": [3]}, "a node is units of one layer"),
        ({"nodes": [~units("0")]}, "a node is units of one layer"),
        ({"nodes": ["nope"]}, "is not part of the model"),
        ({"nodes": ["0"], "keep": 0}, "keep must be a number"),
        ({"nodes": ["0"], "keep": True}, "keep must be a number"),
        ({"nodes": [units("0")[1], units("0")[[1, 2]]]}, "nodes overlap"),
        ({"nodes": ["0", "0"]}, "nodes overlap"),
        ({"nodes": [units("0", directions=torch.ones(4), axis=0)]}, "directions and weights are none"),
        ({"nodes": [units("0", mask=torch.full((4, 1, 1), 0.5))]}, "directions and weights are none"),
        ({"nodes": [units("0").each(5)]}, "names no axes"),
        ({"nodes": [units("0")[9]]}, "there is no unit 9"),
        ({"nodes": [units("0").each(0, 1, 2), units("3").each(0, 1, 2)], "keep": 1e9}, None),
    ):
        if said is None:
            explain(**given)
            continue
        with pytest.raises(InputError) as caught:
            explain(**given)
        assert said in str(caught.value)
    with pytest.raises(InputError, match="a graph is of one sample"):
        relprop.graph(net, pictures(2), 1, nodes=["0"])
    with pytest.raises(CompositeError, match="not linear"):
        explain(nodes=["0"], composite="guided_backprop")
    with pytest.raises(InputError, match="each takes the axes"):
        units("0").each("x")  # type: ignore[arg-type]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_too_many_nodes() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6000), nn.Linear(6000, 2))
    with pytest.raises(InputError, match="the graph would have 6000 nodes; 5000 are the most"):
        relprop.graph(net, torch.randn(1, 4), 1, nodes=["0"], keep=10_000)


def test_layers_off_the_way() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            self.b(x)
            y: Tensor = self.a(x)
            return y

    with pytest.raises(InputError, match="does not lie on the way"):
        relprop.graph(Unused(), vectors(1).float(), 1, nodes=["b"])

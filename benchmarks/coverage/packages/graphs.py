"""Graphs and atoms: the score is that of one node or of the whole graph, so rows are not independent samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.coverage.architectures import Architecture

NODES, FEATURES = 7, 6
# A ring with two chords, in both directions.
_ONE_WAY = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (6, 0), (0, 3), (2, 5)]
EDGES = torch.tensor([*_ONE_WAY, *((b, a) for a, b in _ONE_WAY)]).T.contiguous()


def of_node(output: Any) -> Any:
    """One class of one node: a single number."""
    return output[3, 0]


def graph(name: str, build: Callable[[Any], nn.Module], limit: str = "", **options: Any) -> Architecture:
    def made() -> nn.Module:
        import torch_geometric.nn

        return build(torch_geometric.nn)

    return Architecture(
        name, "torch_geometric", "graphs", made, lambda: torch.randn(NODES, FEATURES), of_node,
        {"edge_index": EDGES, **options}, limit=limit, mixes="nodes are neighbours",
    )  # fmt: skip


def _basic(name: str, **given: Any) -> Callable[[Any], nn.Module]:
    return lambda pyg: getattr(pyg, name)(FEATURES, 8, num_layers=2, out_channels=3, **given)


def _gin_with_edges(pyg: Any) -> nn.Module:
    return pyg.GINEConv(nn.Sequential(nn.Linear(FEATURES, 8), nn.ReLU(), nn.Linear(8, 3)), edge_dim=2)


def _equivariant() -> nn.Module:
    from egnn_pytorch import EGNN

    return EGNN(dim=FEATURES, m_dim=4)


def _irreps() -> nn.Module:
    from e3nn import nn as e3nn_nn
    from e3nn import o3

    gate = e3nn_nn.Gate("4x0e", [torch.relu], "2x0e", [torch.sigmoid], "2x1o")
    return nn.Sequential(o3.Linear("3x0e + 1x1o", gate.irreps_in), gate, o3.Linear(gate.irreps_out, "3x0e"))


ALL: list[Architecture] = [
    graph("GCN", _basic("GCN")),
    graph("GraphSAGE", _basic("GraphSAGE")),
    graph("GraphSAGE, max", _basic("GraphSAGE", aggr="max")),
    graph("GIN", _basic("GIN")),
    graph("GAT", _basic("GAT", heads=2)),
    graph("GATv2", _basic("GAT", v2=True, heads=2)),
    graph("EdgeCNN", _basic("EdgeCNN")),
    graph("PNA", _basic("PNA", aggregators=["mean", "max", "std"], scalers=["identity"], deg=torch.ones(8).long()),
          "a deviation is cut off below"),
    graph("TransformerConv", lambda pyg: pyg.TransformerConv(FEATURES, 3, heads=2, concat=False)),
    graph("ChebConv", lambda pyg: pyg.ChebConv(FEATURES, 3, K=3)),
    graph("RGCNConv", lambda pyg: pyg.RGCNConv(FEATURES, 3, 2), edge_type=torch.arange(EDGES.shape[1]) % 2),
    graph("GINEConv", _gin_with_edges, "features of edges are added to those of nodes", edge_attr=torch.ones(EDGES.shape[1], 2)),
    Architecture(
        "EGNN", "egnn_pytorch", "graphs", _equivariant, lambda: torch.randn(1, NODES, FEATURES), lambda y: y[0][:, 3],
        limit="distances of atoms stand beside their features", options={"coors": torch.linspace(-1, 1, 3 * NODES).reshape(1, NODES, 3).sin()},
    ),
    Architecture("Gate between irreps", "e3nn", "graphs", _irreps, lambda: torch.randn(2, 6)),
]  # fmt: skip

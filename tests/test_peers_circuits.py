"""Edges between latents of transcoders are those of circuit-tracer, and its models read our JSON."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import relprop
from relprop import Splice, units
from test_peers import imported

LAYERS, WIDTH, LATENTS = 2, 16, 24


class Tokens:
    """What circuit-tracer asks of a tokenizer where ids are given."""

    vocab_size, all_special_ids, padding_side = 20, (), "right"
    bos_token_id = pad_token_id = eos_token_id = 0

    def decode(self, ids: Any) -> str:
        return str(ids)


@pytest.fixture(scope="module")
def theirs() -> tuple[Any, Any, list[Any]]:
    """A random transformer, transcoders for its MLPs, and the graph of circuit-tracer."""
    pytest.importorskip("circuit_tracer")
    lens = imported("transformer_lens")
    replaced = imported("circuit_tracer.replacement_model.replacement_model_transformerlens")
    transcoder = imported("circuit_tracer.transcoder.single_layer_transcoder")
    torch.manual_seed(0)
    config = lens.HookedTransformerConfig(
        n_layers=LAYERS, d_model=WIDTH, d_head=8, n_heads=2, d_mlp=32, n_ctx=16, d_vocab=20, act_fn="gelu",
        normalization_type="LN", dtype=torch.float64, device="cpu", seed=0,
    )  # fmt: skip
    made = {}
    for n in range(LAYERS):
        made[n] = transcoder.SingleLayerTranscoder(WIDTH, LATENTS, torch.relu, n, dtype=torch.float64)
        for parameter in made[n].parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    every = transcoder.TranscoderSet(made, "ln2.hook_normalized", "hook_mlp_out")
    model = replaced.TransformerLensReplacementModel.from_config(config, every).double()
    plain = lens.HookedTransformer(config).double().eval()
    own = {
        name.replace(".old_mlp", "").replace(".old_unembed", ""): tensor for name, tensor in model.state_dict().items()
    }
    plain.load_state_dict({name: own[name] for name in plain.state_dict()})
    type(model).ensure_tokenized = lambda self, prompt: prompt
    model.tokenizer = Tokens()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = imported("circuit_tracer.attribution.attribute").attribute(IDS, model, max_n_logits=2)
    return plain, graph, list(made.values())


IDS = torch.tensor([3, 7, 1, 4, 9])


def test_edges_between_latents(theirs: Any, tmp_path: Path) -> None:
    plain, graph, transcoders = theirs
    length = len(IDS)
    later = (torch.arange(length) > 0).double()[:, None]  # circuit-tracer has no latents at the first token
    splices = [
        Splice(f"blocks.{n}.mlp", encode=lambda x, t=t: t.encode(x) * later, decode=t.decode, reads="input", error="sink")
        for n, t in enumerate(transcoders)
    ]  # fmt: skip
    nodes: list[Any] = []
    for n in range(LAYERS):
        nodes += [units(f"blocks.{n}.mlp.latents").each(0, 1), units(f"blocks.{n}.mlp.error").each(0)]
    adjacency = graph.adjacency_matrix.double()
    latents = len(graph.selected_features)
    column = {tuple(graph.active_features[i].tolist()): k for k, i in enumerate(graph.selected_features.tolist())}
    inputs, compared = latents + LAYERS * length, 0
    for row, token in enumerate(graph.logit_token_ids.tolist()):

        def score(output: Tensor, token: int = token) -> Tensor:
            return output[:, -1, token] - output[:, -1].mean(-1)

        G = relprop.graph(
            plain, IDS[None], score, nodes=nodes, keep=5000, composite="cp_lrp", splices=splices, fold_first=False
        )

        def place(node: Any, row: int = row) -> int | None:
            if node.kind != "unit":
                return inputs + (node.position if node.kind == "input" else length + row)
            layer = int(node.layer.split(".")[1])
            if "latents" in node.layer:
                return column.get((layer, *node.index))
            return latents + length * layer + node.index[0] if node.index[0] else None

        for source, target, weight in G.edges:
            at, to, node = place(G.nodes[source]), place(G.nodes[target]), G.nodes[target]
            if at is None or to is None or node.layer.endswith("error"):
                continue
            ours = weight if node.kind == "score" else weight * node.activation / node.relevance
            assert ours == pytest.approx(float(adjacency[to, at]), rel=1e-5, abs=1e-6)
            compared += 1
        G.save(tmp_path / "graph.json")
        data = json.loads((tmp_path / "graph.json").read_text())
        read = imported("circuit_tracer.frontend.graph_models").Model(**data)
        assert len(read.nodes) == len(G) and len(read.links) == len(G.edges)
    assert compared > 1000

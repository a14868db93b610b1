"""Relevance per attention head, from torch's own attention modules and from any module with a fused attention."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import relprop
from helpers import close
from relprop.errors import InputError

COMPOSITES = pytest.mark.parametrize("composite", ["attnlrp", "cp_lrp", "epsilon", "attnlrp_gamma"])


def last(y: Tensor) -> Tensor:
    return y[:, -1, 3]


class Written(nn.Module):
    """nn.MultiheadAttention in plain steps, with a projection that can be looked into."""

    def __init__(self, block: nn.MultiheadAttention) -> None:
        super().__init__()
        self.h = block.num_heads
        self.enter = nn.Linear(block.embed_dim, 3 * block.embed_dim)
        self.enter.weight, self.enter.bias = block.in_proj_weight, block.in_proj_bias  # type: ignore[assignment]
        self.leave = nn.Linear(block.embed_dim, block.embed_dim)
        self.leave.weight, self.leave.bias = block.out_proj.weight, block.out_proj.bias

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.unflatten(-1, (self.h, -1)).transpose(1, 2) for t in self.enter(x).chunk(3, -1))
        y: Tensor = self.leave(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return y


class Own(nn.Module):
    """An attention module of torch inside another module."""

    def __init__(self, weights: bool, batch_first: bool = True) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 4, batch_first=batch_first)
        nn.init.normal_(self.attention.in_proj_bias)
        self.options: dict[str, Any] = {"need_weights": weights}

    def forward(self, x: Tensor) -> Tensor:
        if not self.attention.batch_first:
            x = x.transpose(0, 1)
        y: Tensor = self.attention(x, x, x, **self.options)[0]
        return y if self.attention.batch_first else y.transpose(0, 1)


@COMPOSITES
@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_multihead_attention(composite: str, weights: bool, batch_first: bool) -> None:
    """What enters the projection, laid out by heads; the sum over all is what the values' path carries."""
    model = Own(weights, batch_first).double().eval()
    x = torch.randn(2, 5, 16).double()
    found = relprop.attribute(model, x, last, composite=composite, layers="attention.heads").layers["attention.heads"]
    plain = nn.Sequential(Written(model.attention)).eval()
    entering = relprop.attribute(plain, x, last, composite=composite, layers="0.leave", layers_at="input")
    assert found.shape == (2, 4, 5, 4)
    close(found, entering.layers["0.leave"].unflatten(-1, (4, 4)).transpose(1, 2))
    same = relprop.attribute(plain, x, last, composite=composite, layers="0.heads").layers["0.heads"]
    close(same, found)


@COMPOSITES
def test_heads_of_an_encoder(composite: str) -> None:
    """All layers in one pass, by a glob; each layer's heads carry what its attention hands on, less the bias's share."""
    layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True, activation="gelu")
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).double().eval()
    for block in model.layers:
        nn.init.normal_(block.self_attn.in_proj_bias)
    x = torch.randn(2, 5, 16).double()
    plain = relprop.attribute(model, x, last, composite=composite)
    names = ["layers.*.self_attn.heads", "layers.*.self_attn"]
    found = relprop.attribute(model, x, last, composite=composite, layers=names)
    close(found.values, plain.values)
    for n in range(2):
        heads = found.layers[f"layers.{n}.self_attn.heads"]
        assert heads.shape == (2, 4, 5, 4)
        if composite in ("attnlrp", "cp_lrp"):  # without a stabiliser, and biases of 0 behind
            assert not model.layers[n].self_attn.out_proj.bias.any()
            attended = found.layers[f"layers.{n}.self_attn"]
            close(heads.sum((1, 2, 3)), attended.sum((1, 2)))


def test_one_head_alone() -> None:
    """With the other heads' columns of the projection at 0, they carry nothing, and the one all."""
    model = Own(False).double().eval()
    weight = model.attention.out_proj.weight
    with torch.no_grad():
        weight[:, :8], weight[:, 12:] = 0, 0
    x = torch.randn(2, 5, 16).double()
    found = relprop.attribute(model, x, last, composite="cp_lrp", layers="attention.heads")
    per_head = found.layers["attention.heads"].sum((2, 3))
    close(per_head[:, 2], found.score)
    assert not per_head[:, [0, 1, 3]].any()


def test_heads_beside_other_layers_batches_and_targets() -> None:
    model = nn.Sequential(Own(False), nn.Linear(16, 6)).double().eval()
    x = torch.randn(4, 5, 16).double()
    names = ["0.attention.heads", "1"]
    whole = relprop.attribute(model, x, last, composite="attnlrp", layers=names)
    parts = relprop.attribute(model, x, last, composite="attnlrp", layers=names, batch_size=2)
    several = relprop.attribute_each(model, x, [last, lambda y: y[:, 0, 0]], composite="attnlrp", layers=names)[0]
    again = relprop.attribute(model, x, last, composite="attnlrp", layers=names, checkpoint=["0"])
    for other in (parts, several, again):
        close(other.layers[names[0]], whole.layers[names[0]])
        close(other.layers["1"], whole.layers["1"])


def test_heads_that_are_not_there() -> None:
    model = nn.Sequential(Own(False), nn.Linear(16, 6)).eval()
    x = torch.randn(2, 5, 16)
    for name in ("1.heads", "0.heads", "1.*heads"):
        with pytest.raises(InputError, match=r"no attention ran|is not part of the model"):
            relprop.attribute(model, x, last, layers=name)
    assert list(relprop.attribute(model, x, last, layers="*heads").layers) == ["0.attention.heads"]


class Named(nn.Module):
    """A module that is itself called heads."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.Linear(16, 6)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.heads(x)
        return y


def test_a_module_called_heads_is_a_module() -> None:
    x = torch.randn(2, 5, 16)
    assert relprop.attribute(Named().eval(), x, last, layers="heads").layers["heads"].shape == (2, 5, 6)


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_heads_of_the_librarys_models(kind: str) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {
        "vocab_size": 50, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
    }  # fmt: skip
    model, name, behind = {
        "llama": lambda: (
            transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes)), "model.layers.1.self_attn", "o_proj",
        ),
        "bert": lambda: (
            transformers.BertForSequenceClassification(transformers.BertConfig(**sizes)),
            "bert.encoder.layer.1.attention.self", "",
        ),
    }[kind]()  # fmt: skip
    model.double().eval()
    ids = torch.tensor([[3, 8, 11, 7], [9, 2, 30, 5]])
    target = (-1, 7) if kind == "llama" else 1
    found = relprop.attribute(model, ids, target, composite="attnlrp", layers=f"{name}.heads").layers[f"{name}.heads"]
    assert found.shape == (2, 4, 4, 6)
    if behind:
        entering = relprop.attribute(
            model, ids, target, composite="attnlrp", layers=f"{name}.{behind}", layers_at="input"
        ).layers[f"{name}.{behind}"]
    else:
        entering = relprop.attribute(model, ids, target, composite="attnlrp", layers=name).layers[name]
        entering = entering[0] if isinstance(entering, list) else entering
    torch.testing.assert_close(found, entering.unflatten(-1, (4, 6)).transpose(1, 2))

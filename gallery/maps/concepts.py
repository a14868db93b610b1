"""Concepts and circuits: through which hidden units it went, and what they stand for."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

import relprop
from examples import networks as trained
from gallery import data, networks
from gallery.catalogue import entry
from gallery.maps.classes import classifier
from gallery.maps.digits import digit_network
from gallery.maps.photographs import seen
from gallery.maps.series import trained_series
from gallery.maps.tokens import PROMPT, language_model
from relprop import Contrast, units
from relprop.rendering import Drawing, TokenMatrix, column, titled
from relprop.rendering.scale import number
from relprop.zoo.images import preprocess

CHAPTER = "Concepts and circuits"


@cache
def photographs() -> Any:
    """An index of a block of EfficientNet-Lite0 over 20 pictures of ImageNet with their labels."""
    pictures = [(preprocess(picture)[0], label) for picture, label in data.imagenet()]
    return relprop.index(networks.efficientnet(0), pictures, layers=["blocks.8"], keep=8, batch_size=5)


@entry(CHAPTER, "A cat by its four strongest units")
def four_units() -> Drawing:
    """Four channels of a block in the middle of EfficientNet-Lite0. Beside the relevance through each is what is its own, and
    what it stands for: the parts of other pictures in which it had most relevance, of only 20 here.
    """
    _, x = seen("chelsea.png")
    R = relprop.attribute(networks.efficientnet(0), x)
    return R.concepts(photographs(), most=4, references=3).drawing


@entry(CHAPTER, "Which unit rules which region")
def regions() -> Drawing:
    """The same picture as an atlas: each region in the colour of the channel that has most relevance there."""
    _, x = seen("chelsea.png")
    return relprop.atlas(photographs(), x, most=6).drawing()


@entry(CHAPTER, "How a four is recognised, and fours that are recognised otherwise")
def prototypes() -> Drawing:
    """Prototypes of the digit four in the last hidden layer of a small network, by the digits nearest to each, and below
    them the three that are least like any of them.
    """
    model, _, _ = digit_network()
    x, y, _, _ = data.digits()
    index = relprop.index(
        model, list(zip(x[:2000], y[:2000].tolist(), strict=True)), layers=["7"], keep=4, vectors=True
    )
    return relprop.prototypes(index, "7").drawing(4)


class Whole(nn.Module):
    """A classifier of texts without padding."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, ids: Tensor) -> Tensor:
        """Scores of ids `(N, T)`."""
        return self.inner(ids, torch.ones_like(ids))


@entry(CHAPTER, "A piece of news by two neurons")
def neurons_of_text() -> Drawing:
    """The two strongest neurons of a block of MiniLM for a piece of news about a takeover: where they read it, what is
    their own, and the texts in which they had most relevance, with the token that counted in a frame.
    """
    tokenizer, model, unseen = classifier("news")
    texts = [
        (tokenizer(x, truncation=True, max_length=48, return_tensors="pt").input_ids[0], y) for x, y in unseen[:300]
    ]
    texts.sort(key=lambda pair: len(pair[0]))  # texts of one length share a batch
    layer = "inner.encoder.encoder.layer.3.intermediate"
    net = Whole(model).eval()
    index = relprop.index(net, texts, layers=[layer], keep=8, tokenizer=tokenizer)
    ids, label = texts[120]
    return relprop.attribute(net, ids[None], label).concepts(index, most=2, references=3).drawing


@entry(CHAPTER, "A movement by its strongest channels")
def channels_of_series() -> Drawing:
    """GunPoint: two channels of a convolution over time, and the stretches of other series where they had most relevance."""
    model, x, y, _, _ = trained_series("GunPoint", 120)
    index = relprop.index(model, list(zip(x, y.tolist(), strict=True)), layers=["3"], keep=8)
    return relprop.attribute(model, x[1:2], int(y[1])).concepts(index, most=2, references=3).drawing


@entry(CHAPTER, "From the question to Paris")
def circuit() -> Drawing:
    """A graph of heads and neurons of SmolLM2-135M, for Paris rather than Rome. Red lines hand relevance on, blue ones take
    it away; positions go from left to right, depth goes up.
    """
    tokenizer, model = language_model()
    ids = tokenizer(PROMPT, return_tensors="pt").input_ids
    paris, rome = (tokenizer(word).input_ids[0] for word in (" Paris", " Rome"))
    nodes: list[Any] = [f"model.layers.{n}.self_attn.heads" for n in range(30)]
    nodes += [units(f"model.layers.{n}.mlp.down_proj", at="input").each(0, 1) for n in range(30)]
    graph = relprop.graph(
        model, ids, Contrast((-1, paris), (-1, rome)), nodes=nodes, keep=24, composite="cp_lrp",
        tokens=[tokenizer.decode([int(i)]) for i in ids[0]], forward_kwargs={"use_cache": False},
    )  # fmt: skip
    drawn: Drawing = replace(graph.prune(24, edges=60), subject="Paris rather than Rome").titled_drawing()
    return drawn


@entry(CHAPTER, "Why two sentences are similar")
def similar() -> Drawing:
    """Pairs of tokens whose relevance makes up the cosine of two sentences' embeddings by all-MiniLM-L6-v2: the cat and the
    kitten, the stove and the oven.
    """
    tokenizer, model = trained.minilm()
    sentences = "The cat slept beside the warm stove.", "A kitten was dozing next to the hot oven."
    ids = [tokenizer(sentence, return_tensors="pt").input_ids for sentence in sentences]
    tokens = tuple(tokenizer.convert_ids_to_tokens(one[0]) for one in ids)
    found = relprop.similarity(
        model, *ids, embed=lambda out: out.last_hidden_state.mean(1), cosine=True, tokens=(tokens[0], tokens[1])
    )
    return found.drawing()


@entry(CHAPTER, "An answer by its sources")
def sources() -> Drawing:
    """Three sentences were in the prompt. Bars show the relevance of each for each sentence of the answer; ticks, how far the
    score falls if that sentence is left out.
    """
    tokenizer, model = language_model()
    texts = {
        "lighthouse": "The lighthouse at Cape Merrow was built in 1862 by Ada Finch.",
        "harbour": "The harbour of Merrow was closed in 1931, after the storm.",
        "museum": "Since 1990 the lighthouse has been a museum of fishing.",
    }
    question = "Who built the lighthouse, and what is it now? Answer in two sentences."
    found = relprop.explain_generation(
        model, tokenizer, [{"role": "user", "content": "\n".join([*texts.values(), question])}], sources=texts, verify=3,
        continuation="The lighthouse was built by Ada Finch in 1862. Today it is a museum of fishing.",
    )  # fmt: skip
    drawn: Drawing = found.sources.drawing()
    return drawn


@entry(CHAPTER, "What a recurrent network remembers")
def memory() -> Drawing:
    """A man says two vowels, and an LSTM knows who he is. Each row is a unit of its cell, each column a step: how much of the
    score the unit carried to the next step. Their sum grows with what was heard so far.
    """
    model, x, y = trained.speaker_network()
    path = next(name for name, m in model.named_modules() if isinstance(m, nn.LSTM))
    one, label = x[:1], int(y[0])
    R = relprop.attribute(model, one, label, layers=[f"{path}.cells"])
    cells = torch.stack([state[0] for state in R.layers[f"{path}.cells"]], 1)  # (H, T)
    strongest = cells.abs().sum(1).argsort(descending=True)[:12].tolist()
    steps = [str(t) for t in range(cells.shape[1])]
    units_ = TokenMatrix.of([f"unit {n}" for n in strongest], steps, cells[strongest], style="plain").drawing()
    sums = torch.stack([cells.sum(0), R.values[0].sum(-1)])
    whole = TokenMatrix.of(["all units", "input"], steps, sums, style="plain").drawing()
    said = f"score {number(float(R.score[0]))}; {R.composite.name}"
    return titled(column([units_, whole]), f"speaker {label + 1}: relevance of the cell at each step", lines=[said])

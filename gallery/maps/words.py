"""Words, read by a small network that is trained here."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

import relprop
from gallery import data, networks
from gallery.catalogue import entry, headed
from relprop import Contrast
from relprop.rendering import Drawing, TokenMap, column, titled


@cache
def word_network() -> tuple[networks.ForWords, Tensor, Tensor, list[list[str]], list[str]]:
    """The network, and numbers, classes and words of opinions it has not seen."""
    torch.manual_seed(0)
    texts, labels, names = data.tweets()
    numbers = data.vocabulary(texts)
    x = torch.zeros(len(texts), 24, dtype=torch.long)
    for i, words in enumerate(texts):
        x[i, : len(words)] = torch.tensor([numbers.get(word.lower(), 1) for word in words])
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x, labels, texts = x[order], labels[order], [texts[i] for i in order.tolist()]
    test = len(x) // 5
    model = networks.ForWords(max(numbers.values()) + 1, len(names))
    networks.fit(model, x[test:], labels[test:], 6, batch=128, embed=True)
    return model, x[:test], labels[:test], texts[:test], names


@entry("Words", "Praise or complaint?")
def sentiment() -> Drawing:
    """A small network over embedded words, trained here on short opinions. For each class, the two that it is surest of
    among those it got right. A solid line means for and a dotted one against, for readers who do not see colour.
    """
    model, x, labels, texts, names = word_network()
    with torch.no_grad():
        scores = model(model.embedding(x))
    right = (scores.argmax(1) == labels).float().mean()
    long = torch.tensor([len(words) >= 10 for words in texts])
    parts: list[Drawing] = []
    for label, name in enumerate(names):
        margin = scores[:, label] - scores[:, 1 - label]
        sure = torch.where((labels == label) & (margin > 0) & long, margin, -torch.inf)
        for n in sure.topk(2).indices.tolist():
            embedded = model.embedding(x[n : n + 1]).detach()
            R = relprop.attribute(model, embedded, Contrast(label, 1 - label), composite="epsilon")
            shown = TokenMap.of(texts[n], R.values[0, : len(texts[n])], style="words")
            parts.append(headed(shown.drawing(560), R, f"{name} rather than {names[1 - label]}"))
    return titled(column(parts), "", lines=[f"test accuracy {float(right):.1%}, two classes"])

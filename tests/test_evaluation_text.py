"""Evaluation on models of transformers: classifiers and language models, tokens and words, padding on either side."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import relprop
from relprop.evaluation import ConstantToken, Delete, Flipping, Unattended

pytest.importorskip("transformers")

import text_models as tiny

TEXTS = ["OPEC ministers cut crude oil output.", "Wheat and grain."]


def test_a_classifier_with_words() -> None:
    tokenizer = tiny.words()
    model = tiny.build("bert", tokenizer).eval()
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    E = relprop.evaluate(
        model, batch, 1, ["auto", "cp_lrp"], metrics=["flipping", "erasure", "randomisation"], units="words",
        replace=[ConstantToken(tokenizer.mask_token_id), Delete(pad=tokenizer.pad_token_id), Unattended()],
    )  # fmt: skip
    assert E.free == ["random"]
    counts = [len({word for word in batch.word_ids(n) if word is not None}) for n in range(2)]
    assert E.relevance is not None and E.relevance.shape[2] == max(counts)
    few = counts.index(min(counts))
    assert not bool(E.relevance[:, few, min(counts) :].any())
    with torch.no_grad():
        whole = model(**batch).logits[:, 1].double()
    torch.testing.assert_close(E.score, whole, rtol=1e-5, atol=1e-6)
    for column in E.find("morf"):
        assert column.curve is not None
        torch.testing.assert_close(column.curve[:, :, 0], whole.expand(3, 2), rtol=1e-4, atol=1e-5)
    assert not bool(E["mprt"][:2].isnan().any())


@pytest.mark.parametrize("replacement", [Delete(pad=0, side="left"), ConstantToken(3)])
def test_a_language_model_at_its_last_token(replacement: Any) -> None:
    tokenizer = tiny.letters()
    tokenizer.padding_side = "left"
    model = tiny.build("llama", tokenizer).eval()
    batch = tokenizer(["The capital", "Is it"], padding=True, return_tensors="pt")
    E = relprop.evaluate(
        model, batch, 5, ["auto", "gradient"], metrics=Flipping(steps=4), select=lambda output: output.logits[:, -1],
        replace=replacement, of="log_probability",
    )  # fmt: skip
    with torch.no_grad():
        whole = model(**batch).logits[:, -1].log_softmax(-1)[:, 5].double()
    torch.testing.assert_close(E.score, whole, rtol=1e-5, atol=1e-5)
    assert bool(E["abpc"][:2].abs().max() > 0)


def test_a_text_that_is_shortened_scores_as_the_short_text() -> None:
    """Deleting a word gives what the tokenizer would give without it: positions close up."""
    tokenizer = tiny.words()
    model = tiny.build("bert", tokenizer).eval()
    batch = tokenizer(["crude oil output"], return_tensors="pt")
    maps = torch.zeros(1, batch["input_ids"].shape[1])
    maps[0, 2] = 1.0  # the second word, behind the first special token
    E = relprop.evaluate(
        model,
        batch,
        0,
        {"second": maps},
        metrics=Flipping(steps=3),
        replace=Delete(pad=tokenizer.pad_token_id),
        free=(),
    )
    short = tokenizer(["crude output"], return_tensors="pt")
    with torch.no_grad():
        known = float(model(**short).logits[0, 0])
    assert abs(float(E.find("morf")[0].curve[0, 0, 1]) - known) < 1e-5

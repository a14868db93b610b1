"""The matrix of a generation: one forward pass says what single calls say, and nothing is drawn from later tokens."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop.errors import InputError

pytest.importorskip("transformers")

import text_models as tiny

close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-7)  # rotary angles are float32
PROMPT = "The capital of France is"


@pytest.fixture(scope="module")
def letters() -> Any:
    return tiny.letters()


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mamba"])
def test_the_matrix_equals_single_calls(kind: str, letters: Any) -> None:
    model = tiny.build(kind, letters)
    found = relprop.explain_generation(model, letters, PROMPT, max_new_tokens=11)
    ids = letters(PROMPT, return_tensors="pt").input_ids
    written = model.generate(ids, max_new_tokens=11, do_sample=False, pad_token_id=0)[0]
    count, start = len(found), ids.shape[1]
    assert letters.convert_ids_to_tokens(written) == found.names and count == len(written) - start
    for g in range(count):
        alone = relprop.attribute(
            model, written[None, : start + g], (-1, int(written[start + g])), composite=found.composite
        )
        close(found.relevance[g, : start + g], alone.values[0])
        assert torch.count_nonzero(found.relevance[g, start + g :]) == 0
        close(found.scores[g], alone.score[0])
        probability = alone.output[0, -1].double().softmax(0)[written[start + g]]
        close(found.probabilities[g].double(), probability, rtol=1e-4, atol=1e-6)
    close((found.relevance.sum(1) + found.residual).to(found.scores.dtype), found.scores)
    assert found.read.sum() == sum(range(start, start + count)) and not found.relevance[~found.read].any()
    assert prompt_and(found) == letters.decode(written)
    close(found.of_prompt(), found.relevance[:, :start].sum(0))


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_an_encoder_and_a_decoder(kind: str) -> None:
    """Rows are relevance of the source, of the sign that starts the answer, and of what was written before."""
    tokenizer = tiny.words()
    model = tiny.build(kind, tokenizer)
    text = "opec ministers cut crude oil ."
    found = relprop.explain_generation(model, tokenizer, text, max_new_tokens=10)
    ids = tokenizer(text, return_tensors="pt").input_ids
    written = model.generate(ids, max_new_tokens=10, do_sample=False)[0]
    source, count = ids.shape[1], len(found)
    assert count == len(written) - 1 > 3 and len(found.prompt) == source + 1
    assert tokenizer.convert_ids_to_tokens([*ids[0], *written]) == found.names
    assert found.special[source] and not any(found.special[3 : source - 1])
    for g in range(count):
        alone = relprop.attribute(
            model, {"input_ids": ids, "decoder_input_ids": written[None, : 1 + g]}, (-1, int(written[1 + g])),
            composite=found.composite, select=lambda output: output.logits, forward_kwargs={"use_cache": False},
        )  # fmt: skip
        exactly = partial(torch.testing.assert_close, rtol=1e-6, atol=1e-9)
        exactly(found.relevance[g, :source], alone.values["input_ids"][0])
        exactly(found.relevance[g, source : source + 1 + g], alone.values["decoder_input_ids"][0])
        assert torch.count_nonzero(found.relevance[g, source + 1 + g :]) == 0
        exactly(found.scores[g], alone.score[0])
        exactly(found.residual[g], alone.residual[0])
    assert found.read.sum() == sum(range(source + 1, source + 1 + count))


def test_an_answer_of_ones_own_and_its_start() -> None:
    tokenizer = tiny.words()
    model = tiny.build("t5", tokenizer)
    found = relprop.explain_generation(model, tokenizer, "opec cut", continuation="crude oil output")
    assert found.names[-3:] == ["crude", "oil", "output"] and found.names[4:5] == ["[PAD]"]
    last = relprop.explain_text(model, tokenizer, "opec cut", "output", decoder_text="crude oil")
    close(found.relevance[2], torch.cat([last.relevance, last.decoder.relevance, torch.zeros(1)]))
    begun = torch.tensor([[0, tokenizer.convert_tokens_to_ids("crude")]])
    found = relprop.explain_generation(
        model, tokenizer, "opec cut", max_new_tokens=2, generate={"decoder_input_ids": begun}
    )
    assert found.names[4:6] == ["[PAD]", "crude"] and len(found.prompt) == 6 and len(found) == 2
    close((found.relevance.sum(1) + found.residual), found.scores)


def prompt_and(found: Any) -> str:
    return "".join(found.tokens)


def test_what_absorbed_the_residual(letters: Any, tmp_path: Any) -> None:
    found = relprop.explain_generation(
        tiny.build("llama", letters), letters, PROMPT, max_new_tokens=3, composite="attnlrp", ledger=True
    )
    assert len(found.ledger) > 1
    for row, residual in zip(found.rows(), found.residual.tolist(), strict=True):
        assert sum(row.absorbed.values()) == pytest.approx(residual) and len(row.absorbed) > 1
    pytest.importorskip("safetensors")
    found.save(tmp_path / "kept")
    assert relprop.load(tmp_path / "kept").rows() == found.rows()


def test_a_text_that_was_given(letters: Any) -> None:
    model = tiny.build("llama", letters)
    found = relprop.explain_generation(model, letters, PROMPT, continuation=" Paris. The capital")
    assert found.text == " Paris. The capital" and found.tokens[: len(found.prompt)] == found.prompt
    single = relprop.explain_text(model, letters, PROMPT, " Paris")
    close(found.relevance[0, : len(single)], single.relevance)
    assert found.probabilities[0] == pytest.approx(single.probability, rel=1e-4)


def test_checkpointing_does_not_change_it(letters: Any) -> None:
    model = tiny.build("llama", letters)
    plain, again = (
        relprop.explain_generation(model, letters, PROMPT, max_new_tokens=4, checkpoint=c) for c in (False, True)
    )
    close(plain.relevance, again.relevance)


def test_a_chat(letters: Any) -> None:
    tokenizer = tiny.letters(chat=True)
    found = relprop.explain_generation(
        tiny.build("llama", tokenizer), tokenizer, [{"role": "user", "content": "Italy?"}], max_new_tokens=3
    )
    assert "".join(found.prompt) == "<|user|>Italy?<|end|>A:" and found.special[0]


def test_a_model_without_generate() -> None:
    class Counter(nn.Module):
        """The next token from the mean of all so far."""

        def __init__(self, size: int) -> None:
            super().__init__()
            self.words, self.head = nn.Embedding(size, 8), nn.Linear(8, size)

        def forward(self, ids: Tensor) -> Tensor:
            rows = self.words(ids)
            return self.head(rows.cumsum(1) / torch.arange(1, ids.shape[1] + 1)[:, None])

    tokenizer = tiny.Slow()
    model = Counter(len(tokenizer)).double().eval()
    found = relprop.explain_generation(model, tokenizer, "opec cut", max_new_tokens=5)
    assert len(found) == 5
    close(found.relevance.sum(1) + found.residual, found.scores)


def test_shown(letters: Any) -> None:
    found = relprop.explain_generation(tiny.build("llama", letters), letters, PROMPT, continuation=" Paris\x1b<b>")
    assert "\x1b" not in str(found) and str(found).count("\n") == len(found)
    page = found._repr_html_()
    assert page.count("class=unread") == len(found) * (len(found) - 1) // 2 and "\x1b" not in page
    assert "<b></th>" not in page and "&lt;b" in page


@pytest.mark.parametrize(
    ("kind", "prompt", "options", "says"),
    [
        ("llama", "", {}, "empty"),
        ("llama", ("a", "b"), {}, "one prompt"),
        ("llama", PROMPT, {"max_new_tokens": 0}, "positive int"),
        ("llama", PROMPT, {"continuation": ""}, "nothing was generated"),
        ("llama", "oil " * 80, {}, "the model reads 64"),
        ("t5", PROMPT, {"continuation": ""}, "nothing was generated"),
        ("mask", PROMPT, {"continuation": " Paris is"}, "whole text at once"),
        ("bert", PROMPT, {}, r"at each token, \(N, T, V\); this one gave \(1, \d\). Use explain_text"),
    ],
)
def test_refused(kind: str, prompt: Any, options: dict[str, Any], says: str, letters: Any) -> None:
    with pytest.raises(InputError, match=says):
        relprop.explain_generation(tiny.build(kind, letters), letters, prompt, **options)


def test_targets_that_share_a_pass(letters: Any) -> None:
    """A batched backward pass gives what single ones give, for every named composite."""
    model = tiny.build("llama", letters)
    ids = letters(PROMPT, return_tensors="pt").input_ids
    targets = [(-1, token) for token in range(5)]
    for name in sorted(set(relprop.composites.NAMES) - {"epsilon_gamma_box"}):
        single = relprop.attribute_each(model, ids, targets, composite=name)
        shared = relprop.attribute_each(model, ids, targets, composite=name, targets_at_once=3)
        for one, other in zip(single, shared, strict=True):
            close(one.values, other.values)
    with pytest.raises(InputError, match="targets_at_once"):
        relprop.attribute_each(model, ids, targets, targets_at_once=0)


def test_drawn(letters: Any, tmp_path: Any) -> None:
    pytest.importorskip("PIL")
    found = relprop.explain_generation(tiny.build("llama", letters), letters, PROMPT, continuation=" Paris")
    found.save(tmp_path / "matrix.png")
    assert (tmp_path / "matrix.png").stat().st_size > 500 and "France" in found.to_svg()

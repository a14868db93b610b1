"""Sources of an answer: sums of the matrix, and what the model says without them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import relprop
from relprop.errors import FormatError, InputError

pytest.importorskip("transformers")

import text_models as tiny
from relprop.text.sources import sentences, spans

FRANCE, ITALY = "the capital of france is paris.", "the capital of italy is rome!"
PROMPT = f"{FRANCE}\n{ITALY} what is it?"
ANSWER = " Paris is good. Rome was not\nvery bad"


@pytest.fixture(scope="module")
def letters() -> Any:
    return tiny.letters()


@pytest.fixture(scope="module")
def model(letters: Any) -> Any:
    return tiny.build("llama", letters)


@pytest.fixture(scope="module")
def found(model: Any, letters: Any) -> Any:
    return relprop.explain_generation(
        model, letters, PROMPT, continuation=ANSWER, sources={"France": FRANCE, "Italy": ITALY}, verify=2
    )


def test_sources_are_sums_of_the_matrix(found: Any, model: Any, letters: Any) -> None:
    S = found.sources
    plain = relprop.explain_generation(model, letters, PROMPT, continuation=ANSWER)
    assert plain.sources is None and torch.equal(plain.relevance, found.relevance)
    assert S.names == ["France", "Italy"] and S.sentences == ["Paris is good.", "Rome was not", "very bad"]
    assert "".join(found.generated) == ANSWER and S.ends[0][0] == 0 and S.ends[-1][1] == len(found)
    start = len(found.prompt)
    for s, (a, b) in enumerate(S.ends):
        rows = found.relevance[a:b].double()
        for k, (c, d) in enumerate(S.spans):
            assert "".join(found.prompt[c:d]).strip() == (FRANCE, ITALY)[k]
            assert float(S.relevance[s, k]) == pytest.approx(float(rows[:, c:d].sum()))
        assert float(S.answer[s]) == pytest.approx(float(rows[:, start:].sum()))
        total = S.relevance[s].sum() + S.prompt[s] + S.answer[s] + S.residual[s]
        assert float(total) == pytest.approx(float(S.scores[s])) == pytest.approx(float(found.scores[a:b].sum()))
        assert float(S.residual[s]) == pytest.approx(float(found.residual[a:b].sum()), abs=1e-9)


def test_what_the_model_says_without_a_source(found: Any, model: Any, letters: Any) -> None:
    S, of = found.sources, found.sources.of_answer.abs()
    assert [one.source for one in S.verified] == of.argsort(descending=True).tolist()
    new = letters(ANSWER).input_ids

    def answered(prompt: str) -> Any:
        ids = letters(prompt).input_ids
        with torch.no_grad():
            rows = model(torch.tensor([[*ids, *new]])).logits[0, len(ids) - 1 : -1]
        return torch.stack([rows[torch.arange(len(new)), new], rows.log_softmax(-1)[torch.arange(len(new)), new]])

    whole = answered(PROMPT)
    for one in S.verified:
        fallen = whole - answered(PROMPT.replace((FRANCE, ITALY)[one.source], ""))
        for s, (a, b) in enumerate(S.ends):
            torch.testing.assert_close(one.scores[s].float(), fallen[0, a:b].sum().float(), rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(
                one.log_probabilities[s].float(), fallen[1, a:b].sum().float(), rtol=1e-4, atol=1e-5
            )


def test_shown_and_kept(found: Any, tmp_path: Path) -> None:
    S = found.sources
    assert "without France: the score falls by" in str(found) and "Rome was not" in str(S)
    assert S.strongest(1)[0][0] in ("France", "Italy")
    for name in ("s.svg", "s.png", "s.pdf"):
        S.save(tmp_path / name)
        assert (tmp_path / name).stat().st_size > 500
    assert "France" in (tmp_path / "s.svg").read_text()
    with pytest.raises(InputError, match="sources are saved as"):
        S.save(tmp_path / "s.html")
    found.save(tmp_path / "kept")
    again = relprop.load(tmp_path / "kept").sources
    assert str(again) == str(S) and again.spans == S.spans and again.verified[0].source == S.verified[0].source
    broken = replace(found, sources=replace(S, scores=S.scores[:1]))
    broken.save(tmp_path / "broken")
    with pytest.raises(FormatError, match="sources do not fit"):
        relprop.load(tmp_path / "broken")


def test_a_chat_and_an_encoder(letters: Any) -> None:
    tokenizer = tiny.letters(chat=True)
    chat = [{"role": "system", "content": FRANCE}, {"role": "user", "content": f"  {ITALY} and?"}]
    made = relprop.explain_generation(
        tiny.build("llama", tokenizer), tokenizer, chat, max_new_tokens=3, sources=[FRANCE, ITALY], verify=1
    )
    assert made.sources.names == ["source 1", "source 2"] and len(made.sources.verified) == 1
    words = tiny.words()
    made = relprop.explain_generation(
        tiny.build("t5", words), words, "OPEC cut output, the film was good.", continuation="crude oil",
        sources=["OPEC cut output", "the film"], verify=2,
    )  # fmt: skip
    assert ["".join(made.prompt[a:b]).strip() for a, b in made.sources.spans] == ["OPEC cut output", "the film"]
    assert float(made.sources.verified[0].scores.abs().sum()) > 0


def test_sentences() -> None:
    cut = lambda text: [text[a:b] for a, b in sentences(text)]  # noqa: E731  # each letter a token
    assert cut("One. Two? Three") == ["One.", " Two?", " Three"]
    assert cut("One. ") == ["One. "] and cut("3.5 is a number.\n") == ["3.5 is a number.\n"]
    assert cut("「はい。」いいえ。") == ["「はい。", "」いいえ。"]
    assert cut("!? ") == ["!? "]
    assert sentences(["A.", " B", "C. D", " E"]) == [(0, 1), (1, 3), (3, 4)]


def test_places_of_sources() -> None:
    assert spans(["The", " cat", "\n sat", " ."], {"a": "cat sat"}) == [(1, 3)]
    with pytest.raises(InputError, match="shares a token"):
        spans(["The", " cat", " sat"], {"a": "The cat", "b": "cat sat"})
    with pytest.raises(InputError, match="cannot be told among the tokens"):
        spans(["The", " cat"], {"a": "dog"})


@pytest.mark.parametrize(
    ("sources", "verify", "says"),
    [
        (["no such text"], 0, "'source 1' is 'no such text', which the prompt holds 0 times"),
        (["capital"], 0, "holds 2 times"),
        ([], 0, "the list of sources is empty"),
        ([" "], 0, "must be a text that is not empty"),
        ([3], 0, "must be a text that is not empty; got 3"),
        ("Paris", 0, "must be a list of texts"),
        (None, 1, "verify leaves sources out, so it needs sources"),
        ([FRANCE], -1, "verify must be the number of sources"),
        ([FRANCE, FRANCE[:9] + FRANCE[9:]], 0, "shares a token"),
    ],
)
def test_refused(sources: Any, verify: Any, says: str, model: Any, letters: Any) -> None:
    with pytest.raises(InputError, match=says):
        relprop.explain_generation(model, letters, PROMPT, continuation=" Paris", sources=sources, verify=verify)

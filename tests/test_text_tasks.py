"""What is asked of a text follows from the model's head: the score is the plain model's, the map covers the tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import relprop
import text_models as tiny
from relprop.errors import InputError, TargetError, TargetIndexError

pytest.importorskip("transformers")

TEXT = "paris and rome and paris was good"
CHOICES = ("the capital of france is", ["paris", "rome italy", "opec ministers"])
SEQ2SEQ: dict[str, Any] = {
    "d_model": 24, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 40, "pad_token_id": 0, "bos_token_id": 2,
    "eos_token_id": 3, "decoder_start_token_id": 3, "init_std": 0.3,
}  # fmt: skip
T5: dict[str, Any] = {
    "d_model": 24, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0, "eos_token_id": 3,
    "pad_token_id": 0,
}  # fmt: skip
LED: dict[str, Any] = {
    "max_encoder_position_embeddings": 40, "max_decoder_position_embeddings": 40, "attention_window": 4,
}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "Bart": SEQ2SEQ, "MBart": SEQ2SEQ, "Mvp": SEQ2SEQ, "PLBart": SEQ2SEQ, "LED": SEQ2SEQ | LED,
    "BigBirdPegasus": SEQ2SEQ | {"attention_type": "original_full"}, "T5": T5, "MT5": T5, "UMT5": T5,
}  # fmt: skip


@pytest.fixture(scope="module")
def words() -> Any:
    return tiny.words()


@pytest.fixture(scope="module")
def tags(words: Any) -> nn.Module:
    return tiny.build("tags", words, id2label={0: "O", 1: "B-PER", 2: "B-LOC"}, label2id={})


def seq2seq(family: str, head: str, words: Any, **options: Any) -> Any:
    import transformers

    made = getattr(transformers, family + head, None)
    if made is None:
        pytest.skip(f"transformers has no {family}{head}")
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(vocab_size=len(words), **FAMILIES[family], **options)
    return made(config).double().eval().requires_grad_(False)


def told(model: nn.Module, words: Any, *texts: str) -> Any:
    """What the plain model says."""
    given = words(*texts, return_tensors="pt")
    given.pop("token_type_ids")
    return model(**given)


# ------------------------------------------------------------------------------------ encoder-decoders with a head


@pytest.mark.parametrize("family", FAMILIES)
def test_a_classifier(family: str, words: Any) -> None:
    model = seq2seq(family, "ForSequenceClassification", words, num_labels=3)
    logits = told(model, words, TEXT).logits[0]
    found = relprop.explain_text(model, words, TEXT, 2)
    assert float(found.score) == pytest.approx(float(logits[2])) and found.index == 2
    assert len(found.relevance) == len(words(TEXT).input_ids) and bool((found.relevance != 0).any())
    assert float(found.relevance.sum() + found.residual) == pytest.approx(float(logits[2]))
    assert found.decoder is None and found.probability == pytest.approx(float(logits.softmax(0)[2]))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_reader(family: str, words: Any) -> None:
    model = seq2seq(family, "ForQuestionAnswering", words, num_labels=2)
    pair = ("who was good ?", "paris was good")
    output = told(model, words, *pair)
    found = relprop.explain_text(model, words, pair, "was good")
    first, last = found.index
    assert words.convert_ids_to_tokens(words(*pair).input_ids)[first : last + 1] == ["was", "good"]
    assert float(found.score) == pytest.approx(float(output.start_logits[0, first] + output.end_logits[0, last]))
    assert float(found.relevance.sum() + found.residual) == pytest.approx(float(found.score))


@pytest.mark.parametrize("family", ["Bart", "MBart", "T5"])
def test_many_texts_are_what_each_is_alone(family: str, words: Any) -> None:
    """Also where they hold the sign that the head reads a different number of times: pairs hold it twice."""
    model = seq2seq(family, "ForSequenceClassification", words, num_labels=3)
    texts: list[Any] = [TEXT, "oil", ("paris", "rome was bad"), "opec cut oil"]
    for text, together in zip(texts, relprop.explain_text(model, words, texts, 1), strict=True):
        alone = relprop.explain_text(model, words, text, 1)
        torch.testing.assert_close(together.relevance, alone.relevance)
        pair = text if isinstance(text, tuple) else (text,)
        assert float(together.score) == pytest.approx(float(told(model, words, *pair).logits[0, 1]))


def test_padding_that_is_the_sign_at_the_end(words: Any) -> None:
    model = seq2seq("Bart", "ForSequenceClassification", words, num_labels=3)
    model.config.pad_token_id = 3
    for text, found in zip(("oil", TEXT), relprop.explain_text(model, words, ["oil", TEXT], 1), strict=True):
        assert float(found.score) == pytest.approx(float(told(model, words, text).logits[0, 1]))


def test_a_text_without_the_sign_at_its_end(words: Any) -> None:
    model = seq2seq("Bart", "ForSequenceClassification", words, num_labels=3)
    model.config.eos_token_id = words.mask_token_id
    with pytest.raises(InputError, match=r"text 0 does not hold the id 4.*write it at the end of the text"):
        relprop.explain_text(model, words, "opec cut oil", 1)
    relprop.explain_text(model, words, "opec cut oil [MASK]", 1)  # as advised


def test_a_decoder_that_reads_what_the_model_makes(words: Any) -> None:
    model = seq2seq("Bart", "ForSequenceClassification", words, num_labels=3)
    with pytest.raises(InputError, match="Leave it out"):
        relprop.explain_text(model, words, "oil", 1, decoder_text="film")


def test_an_encoder_decoder_without_a_head(words: Any) -> None:
    import transformers

    torch.manual_seed(0)
    model = transformers.T5Model(transformers.T5Config(vocab_size=len(words), **T5)).double().eval()
    found = relprop.explain_text(model, words, "oil", lambda output: output.last_hidden_state[:, -1, 0])
    assert found.decoder is not None and len(found.decoder) == 1


# ------------------------------------------------------------------------------------------------ classes of tokens


@pytest.mark.parametrize("target", [(3, "B-LOC"), (3, 2), (3, -1), (-6, "B-LOC"), ("rome", "B-LOC"), ("Rome", 2)])
def test_the_class_of_a_token(target: Any, tags: nn.Module, words: Any) -> None:
    logits = tags(**words(TEXT, return_tensors="pt")).logits[0]
    found = relprop.explain_text(tags, words, TEXT, target)
    assert float(found.score) == pytest.approx(float(logits[3, 2]))
    assert found.index == (3, 2) and found.target == "rome: B-LOC"
    assert found.probability == pytest.approx(float(logits[3].softmax(0)[2]))
    assert {name.partition(": ")[0] for name, _ in found.predictions} == {"rome"} and len(found.predictions) == 3
    assert float(found.relevance.sum() + found.residual) == pytest.approx(float(found.score))


def test_the_likeliest_class_of_a_token(tags: nn.Module, words: Any) -> None:
    best = int(tags(**words(TEXT, return_tensors="pt")).logits[0, 3].argmax())
    for target in (("rome", None), (3, None), "rome"):
        assert relprop.explain_text(tags, words, TEXT, target).index == (3, best)


def test_a_word_of_several_tokens_is_its_first(tags: nn.Module, words: Any) -> None:
    text = "ministers was mini"  # mini ##ster ##s was mini
    found = {name: relprop.explain_text(tags, words, text, (name, 0)).index[0] for name in ("ministers", "##s", "mini")}
    assert found == {"ministers": 1, "##s": 3, "mini": 5}  # `mini` is a word of its own, and a part of another


def test_contrasts_of_tokens(tags: nn.Module, words: Any) -> None:
    logits = tags(**words(TEXT, return_tensors="pt")).logits[0]
    nested = relprop.Contrast(("rome", "B-LOC"), relprop.Contrast((1, "O"), (-2, 1)))
    found = relprop.explain_text(tags, words, TEXT, [relprop.Contrast(("rome", "B-LOC"), (1, "O")), nested])
    assert float(found[0].score) == pytest.approx(float(logits[3, 2] - logits[1, 0]))
    assert float(found[1].score) == pytest.approx(float(logits[3, 2] - logits[1, 0] + logits[-2, 1]))
    assert found[0].target == "rome: B-LOC rather than paris: O"


@pytest.mark.parametrize("side", ["left", "right"])
def test_places_count_no_padding(side: str, tags: nn.Module) -> None:
    tokenizer, texts = tiny.words(side=side), ["rome was", TEXT]
    for text, found in zip(texts, relprop.explain_text(tags, tokenizer, texts, [(1, 2), ("rome", 2)]), strict=True):
        alone = relprop.explain_text(tags, tokenizer, text, ("rome", 2))
        if side == "right":  # padding on the left moves BERT's positions
            torch.testing.assert_close(found.relevance, alone.relevance)
        assert found.index == alone.index


def test_as_many_classes_as_words(words: Any) -> None:
    """A row per token that is as wide as the vocabulary, or wider, of a model that speaks no word."""
    for more in (0, 3):
        model = tiny.build("tags", words, num_labels=len(words) + more)
        logits = model(**words(TEXT, return_tensors="pt")).logits[0]
        assert float(relprop.explain_text(model, words, TEXT, ("rome", 5)).score) == pytest.approx(float(logits[3, 5]))


AMBIGUOUS: list[tuple[Any, type[Exception], str]] = [
    (None, TargetError, "say which token and which class"),
    ("B-LOC", TargetError, "does not say of which token"),
    (3, TargetError, "does not say of which token"),
    ((1, 2, 3), TargetError, "does not say of which token"),
    (("paris", "B-LOC"), TargetError, "holds 'paris' 2 times, at tokens 1, 5: write the number"),
    (("milan", 0), TargetError, "no token or word of the text reads 'milan'. Its tokens: 0 .*3 'rome'"),
    ((9, 0), TargetIndexError, "token 9 is out of range: the text has 9 tokens, 0 to 8"),
    ((1, 3), TargetIndexError, "the model has 3 classes per token, 0 to 2"),
    ((1, "B-LOK"), TargetError, "Did you mean 'B-LOC'"),
    ((1.0, 2), TargetError, "got 1.0"),
    ((1, True), TargetError, "got True"),
]


@pytest.mark.parametrize(("target", "error", "said"), AMBIGUOUS)
def test_what_names_no_class_of_a_token(
    target: Any, error: type[Exception], said: str, tags: nn.Module, words: Any
) -> None:
    with pytest.raises(error, match=said):
        relprop.explain_text(tags, words, TEXT, target)


def test_the_advice_is_a_target(tags: nn.Module, words: Any) -> None:
    """Of words that the text holds once."""
    with pytest.raises(TargetError) as caught:
        relprop.explain_text(tags, words, TEXT)
    advice = str(caught.value).partition("Write target=")[2].partition("; or pass")[0]
    assert "'rome'" in advice and "'paris'" not in advice
    first, rest = advice.split(" or ")
    second, third = rest.removesuffix(" takes the class that is likeliest there").split("; ")
    assert len({str(relprop.explain_text(tags, words, TEXT, eval(some))) for some in (first, second, third)}) == 1


def test_names_that_do_not_fit_the_classes_of_tokens(tags: nn.Module, words: Any) -> None:
    assert relprop.explain_text(tags, words, TEXT, ("rome", "b"), labels=["a", "b", "c"]).target == "rome: b"
    with pytest.raises(TargetError, match="labels has 2 names, but the model has 3 classes"):
        relprop.explain_text(tags, words, TEXT, ("rome", "b"), labels=["a", "b"])


# ---------------------------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize(
    ("target", "index"),
    [((-3, -2), (11, 12)), (("rome", "good"), (6, 8)), ((7, "good"), (7, 8)), ((6, 7), (6, 7))],
)
def test_spans(target: Any, index: tuple[int, int], words: Any) -> None:
    model = tiny.build("answer", words)
    pair = ("who was good ?", "rome was good and paris was bad")
    output = model(**words(*pair, return_tensors="pt"))
    found = relprop.explain_text(model, words, pair, target)
    assert found.index == index
    assert float(found.score) == pytest.approx(float(output.start_logits[0, index[0]] + output.end_logits[0, index[1]]))


def test_an_answer_that_occurs_twice_is_where_the_model_finds_it(words: Any) -> None:
    model = tiny.build("answer", words)
    pair = ("who was good ?", "paris was good and paris was bad")
    places = [relprop.explain_text(model, words, pair, (at, at)) for at in (6, 10)]
    best = max(places, key=lambda found: float(found.score))
    assert relprop.explain_text(model, words, pair, "paris").index == best.index
    with pytest.raises(TargetError, match="at tokens 6, 10"):
        relprop.explain_text(model, words, pair, ("paris", "bad"))


def test_spans_count_no_padding() -> None:
    tokenizer = tiny.words(side="left")
    model = tiny.build("answer", tokenizer)
    pairs = [("who ?", "rome was good"), ("who was good ?", "paris was good and rome was bad")]
    first, _ = relprop.explain_text(model, tokenizer, pairs, ["good", "rome"])
    assert first.index == relprop.explain_text(model, tokenizer, pairs[0], "good").index


# ------------------------------------------------------------------------------------------------------ other heads


def choosing(words: Any) -> Any:
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(**tiny.SMALL, vocab_size=len(words), pad_token_id=0, initializer_range=0.3)
    return transformers.BertForMultipleChoice(config).double().eval().requires_grad_(False)


def test_one_of_several_answers(words: Any) -> None:
    model = choosing(words)
    question, answers = CHOICES
    given = words([question] * 3, answers, return_tensors="pt", padding=True)
    logits = model(**{name: value[None] for name, value in given.items()}).logits[0]
    rows = [len(words(question, answer).input_ids) for answer in answers]
    for target in (1, "rome italy"):
        found = relprop.explain_text(model, words, CHOICES, target)
        assert float(found.score) == pytest.approx(float(logits[1])) and found.target == "rome italy"
        assert len(found) == sum(rows) and float(found.relevance.sum() + found.residual) == pytest.approx(
            float(found.score)
        )
        own = slice(rows[0], rows[0] + rows[1])
        assert not bool(found.relevance[: rows[0]].any()) and bool(found.relevance[own].any())
    contrast = relprop.explain_text(model, words, CHOICES, relprop.Contrast("paris", 2))
    assert float(contrast.score) == pytest.approx(float(logits[0] - logits[2]))
    several = relprop.explain_text(model, words, [CHOICES, (question, answers[:2])], ["paris", 1])
    assert [one.target for one in several] == ["paris", "rome italy"]


def test_a_text_without_answers_to_choose_from(words: Any) -> None:
    with pytest.raises(InputError, match="no answers to choose from"):
        relprop.explain_text(choosing(words), words, ("the capital", []))
    with pytest.raises(InputError, match=r"chooses among answers, write text=\(question, \[answer, answer\]\)"):
        relprop.explain_text(choosing(words), words, "the capital of france")


def test_the_next_sentence(words: Any) -> None:
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(**tiny.SMALL, vocab_size=len(words), pad_token_id=0)
    model = transformers.BertForNextSentencePrediction(config).eval().requires_grad_(False)
    logits = model(**words("paris was good", "oil was bad", return_tensors="pt")).logits
    found = relprop.explain_text(model, words, ("paris was good", "oil was bad"), 1)
    assert float(found.score) == pytest.approx(float(logits[0, 1]), rel=1e-4)


@pytest.mark.parametrize(
    ("problem", "count", "probability"),
    [("multi_label_classification", 3, "sigmoid"), ("regression", 3, None), ("regression", 1, None), (None, 1, None)],
)
def test_what_a_score_is_depends_on_the_problem(problem: str | None, count: int, probability: Any, words: Any) -> None:
    model = tiny.build("bert", words, num_labels=count, problem_type=problem)
    logits = model(**words(TEXT, return_tensors="pt")).logits[0]
    found = relprop.explain_text(model, words, TEXT, count - 1)
    assert float(found.score) == pytest.approx(float(logits[-1]))
    expected = None if probability is None else pytest.approx(float(logits[-1].sigmoid()))
    assert found.probability == expected


def test_one_number_per_text() -> None:
    tokenizer = tiny.Slow()
    inner = tiny.Plain(len(tokenizer), 1).requires_grad_(False)
    model = lambda ids: inner(ids)[:, 0]  # noqa: E731
    found = relprop.explain_text(model, tokenizer, "rome was good")
    assert float(found.score) == pytest.approx(
        float(inner(torch.tensor([[2, *tokenizer.convert_tokens_to_ids(["rome", "was", "good"])]])))
    )


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pad", [None, 0])
def test_a_head_that_reads_the_last_token(pad: int | None, side: str) -> None:
    """It finds that token by the padding of the model's own configuration; a model without one takes texts one by one."""
    import transformers

    tokenizer = tiny.letters(side=side)
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=len(tokenizer), n_embd=24, n_layer=2, n_head=4, n_positions=64, num_labels=3, pad_token_id=pad,
        eos_token_id=0, bos_token_id=0,
    )  # fmt: skip
    model = transformers.GPT2ForSequenceClassification(config).double().eval().requires_grad_(False)
    texts = ["The capital of France is", "oil", "a good film"]
    for text, together in zip(texts, relprop.explain_text(model, tokenizer, texts, 2), strict=True):
        torch.testing.assert_close(together.relevance, relprop.explain_text(model, tokenizer, text, 2).relevance)
        plain = model(**tokenizer(text, return_tensors="pt")).logits[0, 2]
        assert float(together.score) == pytest.approx(float(plain))


def test_the_models_own_padding_fills(words: Any) -> None:
    """The head looks for it, whatever the tokenizer pads with."""
    import transformers

    tokenizer = tiny.letters()
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=len(tokenizer), n_embd=24, n_layer=1, n_head=4, n_positions=64, num_labels=3, pad_token_id=7,
        eos_token_id=0, bos_token_id=0,
    )  # fmt: skip
    model = transformers.GPT2ForSequenceClassification(config).double().eval().requires_grad_(False)
    found = relprop.explain_text(model, tokenizer, ["oil", "The capital of France is"], 2)[0]
    assert float(found.score) == pytest.approx(float(model(**tokenizer("oil", return_tensors="pt")).logits[0, 2]))

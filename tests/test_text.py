"""Text in one call: what is explained, whose relevance it is, and what is refused."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop.errors import InputError, TargetError

pytest.importorskip("transformers")

import text_models as tiny
from test_splices import Autoencoder

close = partial(torch.testing.assert_close, rtol=1e-6, atol=1e-9)
TEXT = "OPEC ministers cut crude oil output."


@pytest.fixture(scope="module")
def words() -> Any:
    return tiny.words()


@pytest.fixture(scope="module")
def letters() -> Any:
    return tiny.letters()


@pytest.fixture(scope="module")
def bert(words: Any) -> nn.Module:
    return tiny.build("bert", words, id2label={0: "grain", 1: "crude", 2: "ship"}, label2id={})


@pytest.fixture(scope="module")
def llama(letters: Any) -> nn.Module:
    return tiny.build("llama", letters)


# ---------------------------------------------------------------------------------------------- what is explained


@pytest.mark.parametrize("target", ["crude", 1, torch.tensor(1)])
def test_a_class(bert: nn.Module, words: Any, target: Any) -> None:
    found = relprop.explain_text(bert, words, TEXT, target, composite="attnlrp")
    given = words(TEXT, return_tensors="pt")
    by_hand = relprop.attribute(
        bert, {"input_ids": given.input_ids}, 1, composite="attnlrp",
        forward_kwargs={"attention_mask": given.attention_mask, "token_type_ids": given.token_type_ids},
    )  # fmt: skip
    close(found.relevance, by_hand.values["input_ids"][0])
    logits = bert(**given).logits[0]
    assert found.target == "crude" and found.index == 1
    assert found.score == pytest.approx(float(logits[1])) and found.probability == pytest.approx(
        float(logits.softmax(0)[1])
    )
    assert float(found.relevance.sum()) + found.residual == pytest.approx(float(found.score))


def test_the_likeliest_and_the_top(bert: nn.Module, words: Any) -> None:
    logits = bert(**words(TEXT, return_tensors="pt")).logits[0]
    order = logits.argsort(descending=True).tolist()
    found = relprop.explain_text(bert, words, TEXT)
    assert found.index == order[0] and [name for name, _ in found.predictions] == [
        bert.config.id2label[i] for i in order
    ]
    top = relprop.explain_text(bert, words, TEXT, top=2)
    assert [one.index for one in top] == order[:2]
    several = relprop.explain_text(bert, words, TEXT, [order[0], relprop.Contrast(*order[:2])])
    close(several[0].relevance, top[0].relevance)
    close(several[1].relevance, top[0].relevance - top[1].relevance)
    assert several[1].target == f"{top[0].target} rather than {top[1].target}" and several[1].probability is None


def test_a_callable(bert: nn.Module, words: Any) -> None:
    found = relprop.explain_text(bert, words, TEXT, lambda output: output.logits[:, 0] + output.logits[:, 1])
    both = relprop.explain_text(bert, words, TEXT, [0, 1])
    close(found.relevance, both[0].relevance + both[1].relevance)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mamba"])
def test_the_next_token(kind: str, letters: Any) -> None:
    model = tiny.build(kind, letters)
    prompt = "The capital of France is"
    found = relprop.explain_text(model, letters, prompt, " Paris")
    ids = letters(prompt, return_tensors="pt").input_ids
    index = letters(" Paris").input_ids[0]
    logits = model(input_ids=ids).logits[0, -1]
    close(found.relevance, relprop.attribute(model, ids, (-1, index)).values[0])
    assert found.index == index and found.target == " Paris"
    assert found.probability == pytest.approx(float(logits.softmax(0)[index]), rel=1e-5)
    assert "".join(found.pieces) == prompt


def test_a_string_takes_the_spelling_that_the_model_finds_likelier(llama: nn.Module, letters: Any) -> None:
    prompt = "The capital of France"
    logits = llama(input_ids=letters(prompt, return_tensors="pt").input_ids).logits[0, -1]
    spelled = [letters(some).input_ids[0] for some in ("is", " is") if len(letters(some).input_ids) == 1]
    assert len(spelled) == 2
    found = relprop.explain_text(llama, letters, prompt, "is")
    assert found.index == max(spelled, key=lambda i: float(logits[i]))
    assert relprop.explain_text(llama, letters, prompt, " is").index == spelled[1]


def test_a_masked_token(words: Any) -> None:
    model = tiny.build("mask", words)
    text = "the capital of [MASK] is paris"
    given = words(text, return_tensors="pt")
    at = given.input_ids[0].tolist().index(words.mask_token_id)
    found = relprop.explain_text(model, words, text, "italy")
    index = words.convert_tokens_to_ids("italy")
    by_hand = relprop.attribute(
        model, {"input_ids": given.input_ids}, (at, index), composite=found.composite,
        forward_kwargs={"attention_mask": given.attention_mask, "token_type_ids": given.token_type_ids},
    )  # fmt: skip
    close(found.relevance, by_hand.values["input_ids"][0])
    assert found.special[at]
    with pytest.raises(TargetError, match=r"write '\[MASK\]'"):
        relprop.explain_text(model, words, "the capital of italy")
    with pytest.raises(TargetError, match="mask=0, but text 0 has no mask"):
        relprop.explain_text(model, words, "the capital of italy", mask=0)
    with pytest.raises(TargetError, match="2 masks"):
        relprop.explain_text(model, words, "[MASK] capital [MASK]")
    first, second = (relprop.explain_text(model, words, "[MASK] capital [MASK]", "paris", mask=m) for m in (0, 1))
    assert first.score != second.score
    with pytest.raises(TargetError, match="0 to 1"):
        relprop.explain_text(model, words, "[MASK] capital [MASK]", mask=2)


def test_the_span_of_an_answer(words: Any) -> None:
    model = tiny.build("answer", words)
    pair = ("who cut output ?", "opec ministers cut crude oil output .")
    given = words(*pair, return_tensors="pt")
    output = model(**given)
    names = words.convert_ids_to_tokens(given.input_ids[0])
    first, last = names.index("crude"), names.index("oil")
    found = relprop.explain_text(model, words, pair, "crude oil")
    assert found.index == (first, last) and found.target == "crude oil"
    assert found.score == pytest.approx(float(output.start_logits[0, first] + output.end_logits[0, last]))
    close(found.relevance, relprop.explain_text(model, words, pair, (first, last)).relevance)
    best = relprop.explain_text(model, words, pair)
    inside = range(names.index("[SEP]") + 1, len(names) - 1)
    spans = [
        (float(output.start_logits[0, s] + output.end_logits[0, e]), s, e) for s in inside for e in inside if s <= e
    ]
    assert best.index == max(spans)[1:]
    with pytest.raises(TargetError, match="not a span"):
        relprop.explain_text(model, words, pair, "italy")
    with pytest.raises(TargetError, match="first token, last token"):
        relprop.explain_text(model, words, pair, (1, 2))


def test_an_encoder_and_a_decoder(words: Any) -> None:
    model = tiny.build("t5", words)
    found = relprop.explain_text(model, words, TEXT, "paris", decoder_text="the capital", composite="cp_lrp")
    assert found.decoder is not None and len(found.decoder) == 3
    total = float(found.relevance.sum() + found.decoder.relevance.sum()) + found.residual
    assert total == pytest.approx(float(found.score)) and "written so far" in str(found)
    plain = words(TEXT, return_tensors="pt")
    ids = torch.tensor([[0, *words("the capital", add_special_tokens=False).input_ids]])
    logits = model(input_ids=plain.input_ids, decoder_input_ids=ids).logits
    assert found.score == pytest.approx(float(logits[0, -1, words.convert_tokens_to_ids("paris")]))
    with pytest.raises(InputError, match="encoder-decoder"):
        relprop.explain_text(tiny.build("bert", words), words, TEXT, decoder_text="the")


def test_a_chat(llama: nn.Module) -> None:
    tokenizer = tiny.letters(chat=True)
    messages = [{"role": "user", "content": "The capital of Italy?"}]
    found = relprop.explain_text(llama, tokenizer, messages)
    assert "".join(found.pieces) == "<|user|>The capital of Italy?<|end|>A:"
    assert [p for p, own in zip(found.pieces, found.special, strict=True) if own] == ["<|user|>", "<|end|>"]
    both = relprop.explain_text(llama, tokenizer, [messages, "The capital"])
    close(both[0].relevance, found.relevance, rtol=1e-5, atol=1e-7)
    with pytest.raises(InputError, match="chat template"):
        relprop.explain_text(llama, tiny.letters(), messages)


def test_a_model_of_ones_own_and_a_slow_tokenizer() -> None:
    tokenizer = tiny.Slow()
    model = tiny.Plain(len(tokenizer)).double().eval()
    found = relprop.explain_text(model, tokenizer, "opec cuts crude oil", "b", labels=["a", "b", "c"])
    ids = torch.tensor([tokenizer("opec cuts crude oil")["input_ids"]])
    close(found.relevance, relprop.attribute(model, ids, 1).values[0])
    assert found.pieces == ["[CLS]", "opec", " cut", "s", " crude", " oil"]
    assert [w.text for w in found.words] == ["[CLS]", "opec", "cuts", "crude", "oil"]
    with pytest.raises(InputError, match="no attention_mask"):
        relprop.explain_text(model, tokenizer, ["opec cut", "oil"])
    assert len(relprop.explain_text(lambda ids: model(ids), tokenizer, ["opec cut", "crude oil"])) == 2


def test_a_slow_tokenizer_of_the_library(tmp_path: Any) -> None:
    from transformers import CTRLTokenizer

    from relprop.text.tokens import tokenize

    names = ["<unk>", "the", "of", "out@@", "put", "t", "h", "e", "o", "f"]
    (tmp_path / "vocab.json").write_text(str({n: i for i, n in enumerate(names)}).replace("'", '"'))
    merges = "#version: 0.2\no u\np u\npu t</w>\nou t\no f</w>\nt h\nth e</w>\n"
    (tmp_path / "merges.txt").write_text(merges)
    tokenizer = CTRLTokenizer(vocab_file=str(tmp_path / "vocab.json"), merges_file=str(tmp_path / "merges.txt"))
    found = tokenize(tokenizer, "the output of the")
    assert found.names == ["the", "out@@", "put", "of", "the"]
    assert "".join(found.pieces) == "the output of the" and found.words == [(0, 1), (1, 3), (3, 4), (4, 5)]


# --------------------------------------------------------------------------------------------- words and batches


def test_words(bert: nn.Module, words: Any) -> None:
    found = relprop.explain_text(bert, words, "OPEC's ministers cut, cutting  crude oil")
    texts = [w.text for w in found.words]
    assert texts == ["[CLS]", "OPEC's", "ministers", "cut", ",", "cutting", "crude", "oil", "[SEP]"]
    for word in found.words:
        assert word.relevance == pytest.approx(float(found.relevance[list(word.tokens)].sum()))
    assert [w.special for w in found.words] == [True, *[False] * 7, True]
    assert not any(w.special for w in found.top(20)) and found.top(1)[0].relevance == max(
        w.relevance for w in found.words if not w.special
    )


def test_letters_of_several_tokens(llama: nn.Module, letters: Any) -> None:
    """A snowman is three bytes; ideographs are words of their own."""
    found = relprop.explain_text(llama, letters, "Oil ☃ 石油")
    assert "".join(found.pieces) == "Oil ☃ 石油"
    assert [w.text for w in found.words] == ["Oil", "☃", "石", "油"]


@pytest.mark.parametrize(
    ("kind", "side"),
    # the classifiers of BERT and RoBERTa read the first token, so that padding before it changes what they say
    [(k, s) for k in ("mask", "roberta mask", "llama", "gpt2", "mamba") for s in ("left", "right")]
    + [("bert", "right"), ("roberta", "right")],
)
def test_texts_of_different_lengths(kind: str, side: str) -> None:
    tokenizer = tiny.letters(side=side) if kind in ("llama", "gpt2", "mamba") else tiny.words(side=side)
    model = tiny.build(kind, tokenizer)
    texts = ["The capital of France is Paris", "oil", "a film was not very good ."]
    if "mask" in kind:
        texts = [f"[MASK] {text}" for text in texts]
    # what is left out of a result is padding, and all that was handed out has to be accounted for
    whole = relprop.explain_text(model, tokenizer, texts, composite="attnlrp")
    for text, together in zip(texts, whole, strict=True):
        alone = relprop.explain_text(model, tokenizer, text, composite="attnlrp")
        assert together.tokens == alone.tokens and together.target == alone.target
        close(together.relevance, alone.relevance, rtol=1e-5, atol=1e-7)  # rotary angles are float32
        assert float(together.relevance.sum()) + together.residual == pytest.approx(float(together.score), rel=1e-5)
    in_twos = relprop.explain_text(model, tokenizer, texts, composite="attnlrp", batch_size=2)
    close(in_twos[2].relevance, whole[2].relevance, rtol=1e-5, atol=1e-7)
    each = relprop.explain_text(model, tokenizer, texts, [0, 1, 0])
    assert [one.index for one in each] == [0, 1, 0]


# -------------------------------------------------------------------------------------------- inside the network


@pytest.mark.parametrize("kind", ["bert", "llama", "gpt2"])
def test_blocks_heads_and_neurons(kind: str) -> None:
    tokenizer = tiny.words() if kind == "bert" else tiny.letters()
    model = tiny.build(kind, tokenizer)
    found = relprop.explain_text(model, tokenizer, ["The capital of France is", "oil"], parts=True)[0]
    count = len(found)
    assert found.blocks is not None and found.heads is not None and found.neurons is not None
    assert found.blocks.shape == (2, count) and found.heads.shape == (2, 4, count)
    assert [r.shape for r in found.neurons] == [(count, 96 if kind == "gpt2" else 40)] * 2
    parts = relprop.text.find_parts(model)
    after = relprop.explain_text(
        model, tokenizer, ["The capital of France is", "oil"], layers=parts.attention[0], layers_at="input"
    )[0].layers[parts.attention[0]]
    close(found.heads[0], after.unflatten(-1, (4, -1)).sum(-1).T)
    if kind != "bert":  # BERT normalises what enters its first block, with a bias
        close(found.blocks[0] if kind == "llama" else found.relevance, found.relevance)


@pytest.mark.parametrize(
    ("kind", "attention", "mlp"),
    [
        ("phi3", "self_attn.o_proj", "mlp.down_proj"),
        ("opt", "self_attn.out_proj", "fc2"),
        ("gemma3", "self_attn.o_proj", "mlp.down_proj"),
        ("mixtral", "self_attn.o_proj", None),  # its experts share one weight
        ("mamba", None, "mixer.out_proj"),
    ],
)
def test_parts_are_found(kind: str, attention: str | None, mlp: str | None, letters: Any) -> None:
    model = tiny.build(kind, letters)
    parts = relprop.text.find_parts(model)
    for paths, name in ((parts.attention, attention), (parts.mlp, mlp)):
        assert len(paths) == (2 if name else 0) and all(path.endswith(f".{name}") for path in paths)
    found = relprop.explain_text(model, letters, ["The capital of France is", "oil"], parts=parts)
    assert found[0].blocks.shape == (2, len(found[0])) and found[1].blocks.shape == (2, len(found[1]))
    assert (found[0].heads is None) == (attention is None)
    assert all(r.shape[0] == len(found[0]) for r in found[0].neurons)


def test_a_block_that_runs_several_times(words: Any) -> None:
    with pytest.raises(InputError, match="several times"):
        relprop.explain_text(tiny.build("albert", words), words, TEXT, parts=True)


def test_no_blocks() -> None:
    tokenizer = tiny.Slow()
    with pytest.raises(InputError, match="no list of blocks"):
        relprop.explain_text(tiny.Plain(len(tokenizer)).double().eval(), tokenizer, "oil", parts=True)


class Positioned(nn.Module):
    """Words plus positions, without anything that bends them: relevance can be read off."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.words, self.places, self.head = nn.Embedding(size, 6), nn.Embedding(64, 6), nn.Linear(6, 3, bias=False)

    def get_input_embeddings(self) -> nn.Module:
        return self.words

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        rows = self.words(input_ids) + self.places(attention_mask.cumsum(1) - 1)
        return self.head((rows * attention_mask[..., None]).sum(1))


def test_positions_that_are_added(words: Any) -> None:
    model = Positioned(len(words)).double().eval()
    texts = ["the capital of france", "crude oil"]
    for found in relprop.explain_text(model, words, texts, 1, composite="zero", positions=True):
        weight = model.head.weight[1].detach()
        ids = torch.tensor(words.convert_tokens_to_ids(found.tokens))
        close(found.relevance, model.words.weight.detach()[ids] @ weight)
        close(found.positions["places"], model.places.weight.detach()[: len(ids)] @ weight)
        assert found.residual == pytest.approx(0, abs=1e-9) and "positions" in str(found)


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama", "gemma3"])
def test_positions_of_the_librarys_models(kind: str) -> None:
    tokenizer = tiny.words() if kind == "bert" else tiny.letters()
    model = tiny.build(kind, tokenizer)
    plain, found = (
        relprop.explain_text(
            model,
            tokenizer,
            "The capital of France is",
            positions=p,
            composite="cp_lrp" if kind in ("bert", "gpt2") else "attnlrp",
        )
        for p in (False, True)
    )
    assert not plain.positions and found.score == pytest.approx(float(plain.score))
    name = {"bert": "bert.embeddings.position_embeddings", "gpt2": "transformer.wpe"}.get(kind, "rotary")
    assert found.positions[name].shape == found.relevance.shape and float(found.positions[name].abs().sum()) > 0
    total = sum(float(r.sum()) for r in found.positions.values()) + float(found.relevance.sum()) + found.residual
    assert total == pytest.approx(float(found.score))
    if kind in ("bert", "gpt2"):  # an added position takes nothing from the tokens; a rotation shares with them
        close(found.relevance, plain.relevance)
    else:
        assert not torch.allclose(found.relevance, plain.relevance)
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())


def test_no_positions(words: Any) -> None:
    with pytest.raises(InputError, match="position encodings"):
        relprop.explain_text(tiny.Plain(len(words)).double().eval(), words, "oil", positions=True)


# --------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("text", "options", "error", "says"),
    [
        ("", {}, InputError, "empty"),
        ("  ", {}, InputError, "empty"),
        (["oil", ""], {}, InputError, "empty"),
        ([], {}, InputError, "list of texts is empty"),
        (3, {}, InputError, "a text is a str"),
        ("oil " * 80, {}, InputError, "82 tokens, the model reads 64"),
        ("oil", {"target": "wheat"}, TargetError, "no class 'wheat'"),
        ("oil", {"target": 7}, TargetError, "out of range"),
        ("oil", {"target": 1.5}, TargetError, "target must be"),
        ("oil", {"target": []}, TargetError, "list of targets is empty"),
        ("oil", {"target": 1, "top": 2}, TargetError, "not both"),
        ("oil", {"top": 0}, TargetError, "positive int"),
        ("oil", {"top": 9}, TargetError, "only 3 scores"),
        (["oil", "cut"], {"target": [1]}, TargetError, "1 targets for 2 texts"),
        ("oil", {"parts": True, "layers": "bert.*"}, InputError, "layers of its own"),
        ("oil", {"batch_size": 0}, InputError, "batch_size"),
        ("oil", {"target": "b", "labels": ["a", "b"]}, TargetError, "labels has 2 names, but the model has 3 classes"),
    ],
)
def test_refused(bert: nn.Module, words: Any, text: Any, options: dict[str, Any], error: Any, says: str) -> None:
    with pytest.raises(error, match=says):
        relprop.explain_text(bert, words, text, **options)


def test_a_long_text_can_be_cut(bert: nn.Module, words: Any) -> None:
    assert len(relprop.explain_text(bert, words, "oil " * 80, max_length=64)) == 64


def test_a_target_of_several_tokens(llama: nn.Module, letters: Any) -> None:
    with pytest.raises(TargetError, match=r"is \d tokens \('x'"):
        relprop.explain_text(llama, letters, "The capital", "xylophone")


def test_a_target_outside_the_vocabulary(words: Any) -> None:
    with pytest.raises(TargetError, match="not in the tokenizer's vocabulary"):
        relprop.explain_text(tiny.build("mask", words), words, "the [MASK]", "xylophone")


def test_no_padding_token(letters: Any) -> None:
    tokenizer, texts = tiny.letters(pad=False), ["oil", "The capital of France"]
    model = tiny.build("llama", letters, pad_token_id=None)
    assert len(relprop.explain_text(model, tokenizer, ["oil", "oil"])) == 2
    with pytest.raises(InputError, match=r"set tokenizer\.pad_token = tokenizer\.eos_token"):
        relprop.explain_text(model, tokenizer, texts)
    alone = relprop.explain_text(model, tokenizer, texts[0], 3)
    tokenizer.pad_token = tokenizer.eos_token  # as advised
    close(relprop.explain_text(model, tokenizer, texts, 3)[0].relevance, alone.relevance, rtol=1e-5, atol=1e-7)


def test_the_models_own_padding_will_do(llama: nn.Module) -> None:
    """A mask hides it."""
    assert llama.config.pad_token_id is not None
    tokenizer = tiny.letters(pad=False)
    first, _ = relprop.explain_text(llama, tokenizer, ["oil", "The capital of France"], 3)
    close(first.relevance, relprop.explain_text(llama, tokenizer, "oil", 3).relevance, rtol=1e-5, atol=1e-7)


def test_a_target_of_no_letters(llama: nn.Module, letters: Any) -> None:
    with pytest.raises(TargetError, match="the target is an empty str"):
        relprop.explain_text(llama, letters, "The capital", "")


def test_model_and_tokenizer_in_the_wrong_order(llama: nn.Module, letters: Any) -> None:
    with pytest.raises(InputError, match="LlamaForCausalLM: pass the model first, then its tokenizer"):
        relprop.explain_text(letters, llama, "The capital")


def test_a_tokenizer_of_another_model(letters: Any, words: Any) -> None:
    with pytest.raises(InputError, match="do not belong together"):
        relprop.explain_text(tiny.build("bert", words), letters, "The capital of France")


def test_a_row_per_token_that_is_no_vocabulary(words: Any) -> None:
    with pytest.raises(TargetError, match="callable"):
        relprop.explain_text(tiny.build("tags", words), words, "oil")


# --------------------------------------------------------------------------------------------------------- shown


def test_as_text(bert: nn.Module, words: Any) -> None:
    shown = str(relprop.explain_text(bert, words, TEXT, "crude"))
    lines = shown.splitlines()
    assert lines[0].startswith("'crude', probability") and len(lines) == 10
    assert "ministers" in lines[3] and "█" in shown and repr(relprop.explain_text(bert, words, TEXT, "crude")) == shown


def test_hostile_text_is_text(llama: nn.Module, letters: Any) -> None:
    found = relprop.explain_text(llama, letters, "<script>alert(1)</script>\x1b[31m oil")
    assert "\x1b" not in str(found) and "\\x1b" in str(found)
    assert "<script>" not in found._repr_html_() and "&lt;" in found._repr_html_()


def test_the_model_stays_as_it_was(bert: nn.Module, words: Any) -> None:
    before = {name: p.clone() for name, p in bert.state_dict().items()}
    relprop.explain_text(bert, words, TEXT, parts=True, positions=True)
    assert all(torch.equal(p, before[name]) for name, p in bert.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in bert.modules())


def test_conditions_and_latents_of_texts() -> None:
    """Through and around a latent are the whole, in tokens; the result says the condition, and texts in a batch share it."""
    from transformers import BertConfig, BertForSequenceClassification

    tok = tiny.words()
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(tok), pad_token_id=0, **tiny.SMALL)
    model = BertForSequenceClassification(config).double().eval()
    path = "bert.encoder.layer.0.output"
    splice, latent = relprop.Splice(path, Autoencoder(24, 40)), relprop.units(f"{path}.latents")[:, :9]
    texts = ["the film was good", "a film was not very good"]
    explain: Any = partial(relprop.explain_text, model, tok, texts, 0, splices=splice)
    whole, one, rest = explain(layers=[f"{path}.latents"]), explain(through=latent), explain(through=~latent)
    for all_, a, b in zip(whole, one, rest, strict=True):
        torch.testing.assert_close(a.relevance + b.relevance, all_.relevance, rtol=1e-10, atol=1e-13)
        of_units = all_.layers[f"{path}.latents"][:, :9].sum()
        torch.testing.assert_close(a.relevance.sum() + a.residual, of_units, rtol=1e-10, atol=1e-13)
        assert "Only relevance through units" in str(a) and "left out" not in str(all_)
        assert torch.equal(all_.score, a.score)
    alone = relprop.explain_text(model, tok, texts[0], 0, splices=splice, through=latent)
    torch.testing.assert_close(alone.relevance, one[0].relevance, rtol=1e-10, atol=1e-13)
    with pytest.raises(InputError, match="explain_text takes one condition"):
        explain(through=[latent, latent])

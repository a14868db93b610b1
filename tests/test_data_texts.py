"""Runs over texts: the relevance of tokens, in rows of one length."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import relprop
from relprop.errors import InputError

pytest.importorskip("zarr")
pytest.importorskip("transformers")

import text_models as tiny
from relprop import data

WORDS = tiny.WORDS
TEXTS = [" ".join(WORDS[n % 7 : n % 7 + 2 + (n * 5) % 11]) for n in range(20)]


@pytest.fixture(scope="module")
def words() -> Any:
    return tiny.words()


@pytest.fixture(scope="module")
def bert(words: Any) -> nn.Module:
    return tiny.build("bert", words, id2label={0: "grain", 1: "crude", 2: "ship"}, label2id={}).float()


def explain(source: Any, folder: Path, model: Any, tokenizer: Any, **settings: Any) -> data.DatasetRun:
    settings = {"batch_size": 4, "unit": 10, "progress": False, "number_format": "float32", **settings}
    return relprop.explain_dataset(source, model, folder, tokenizer=tokenizer, **settings)


def test_a_run_holds_what_explain_text_gives(tmp_path: Path, bert: nn.Module, words: Any) -> None:
    keep = {"bert.encoder.layer.0": "channels", "bert.encoder.layer.1": "top:3", "bert.pooler": "full"}
    run = explain(TEXTS, tmp_path / "maps", bert, words, keep=keep, ledger=True)
    expected = relprop.explain_text(bert, words, TEXTS, layers=list(keep), ledger=True)
    logits = [bert(**words(text, return_tensors="pt")).logits[0] for text in TEXTS]
    for n, (one, right) in enumerate(zip([run[key] for key in run.keys()], expected, strict=True)):  # noqa: SIM118
        scale = float(right.relevance.abs().max())
        assert np.abs(one.map - right.relevance.numpy()).max() < 1e-5 * scale
        assert one.score == pytest.approx(float(right.score), abs=1e-6) and one.target == right.index
        assert one.residual == pytest.approx(float(right.residual), abs=1e-5)
        assert list(one.tokens.names) == right.tokens
        layer = right.layers["bert.encoder.layer.0"]
        assert np.allclose(
            one.layers["layers.bert.encoder.layer.0"], layer.sum(0), atol=1e-5 * float(layer.abs().max())
        )
        flat = right.layers["bert.encoder.layer.1"].flatten()
        value = one.layers["layers.bert.encoder.layer.1.value"]
        assert np.allclose(np.abs(value), flat.abs().topk(3).values, rtol=1e-3)
        assert np.allclose(one.layers["layers.bert.pooler"], right.layers["bert.pooler"], rtol=1e-3, atol=1e-7)
        drawn = one.relevance(words)
        assert [(w.text, w.special) for w in drawn.words] == [(w.text, w.special) for w in right.words]
        assert sum(one.ledger.values()) == pytest.approx(one.residual, abs=1e-5)
        assert run.store.array("top.index")[n].tolist() == logits[n].argsort(descending=True).tolist()


def test_texts_are_sorted_by_length_inside_a_unit(tmp_path: Path, bert: nn.Module, words: Any) -> None:
    lengths = np.random.default_rng(0).lognormal(2.3, 0.6, 256).astype(int).clip(1, 40)
    texts = [" ".join(WORDS[(n + k) % len(WORDS)] for k in range(length)) for n, length in enumerate(lengths)]
    seen: list[torch.Size] = []
    handle = bert.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    try:
        run = explain(texts, tmp_path / "sorted", bert, words, batch_size=16, unit=128)
    finally:
        handle.remove()
    tokens = int(run.store.array("tokens.length")[:].sum())
    assert sum(shape.numel() for shape in seen[1:]) <= 1.15 * tokens  # the first pass looks at one text
    given = relprop.explain_text(bert, words, texts, batch_size=16)
    for key, right in zip(run.keys(), given, strict=True):
        assert np.abs(run[key].map - right.relevance.numpy()).max() < 1e-5 * float(right.relevance.abs().max())


def test_a_decoder_padded_on_the_left(tmp_path: Path) -> None:
    letters = tiny.letters()
    llama = tiny.build("llama", letters).float()
    texts = ["The capital of France is", "a film", "The capital of Italy is Rome. The capital of"]
    run = explain(texts, tmp_path / "maps", llama, letters, target="top:2", max_length=64)
    right = relprop.explain_text(llama, letters, texts, top=2)
    for n in range(3):
        one = run[str(n)]
        for rank in range(2):
            expected = right[n][rank]
            assert np.abs(one.map[rank] - expected.relevance.numpy()).max() < 1e-5 * float(
                expected.relevance.abs().max()
            )
            assert one.target[rank] == expected.index
        assert "".join(one.relevance(letters).pieces) == texts[n]
        assert "".join(one.relevance(which=1).pieces) == texts[n]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "lines", "folder", "data set", "pairs"])
def test_sources(tmp_path: Path, bert: nn.Module, words: Any, kind: str) -> None:
    labels = [n % 3 for n in range(6)]
    settings: dict[str, Any] = {"target": "label"}
    source: Any = tmp_path / f"x.{kind}"
    texts: list[Any] = TEXTS[:6]
    keys = [str(n) for n in range(6)]
    if kind == "csv":
        source.write_text("text,label\n" + "".join(f'"{t}",{n}\n' for t, n in zip(texts, labels, strict=True)))
    elif kind == "jsonl":
        source.write_text(
            "".join(json.dumps({"words": t, "label": n}) + "\n" for t, n in zip(texts, labels, strict=True))
        )
        settings["column"] = "words"
    elif kind == "lines":
        source = tmp_path / "x.txt"
        source.write_text("\n\n".join(texts))
        keys, settings = [str(2 * n) for n in range(6)], {"target": labels}
    elif kind == "folder":
        for n, text in enumerate(texts):
            (tmp_path / "in" / f"{n}").mkdir(parents=True)
            (tmp_path / "in" / f"{n}" / "a.txt").write_text(text)
        source, keys, settings = tmp_path / "in", [f"{n}/a.txt" for n in range(6)], {"target": labels}
    elif kind == "data set":
        source = list(zip(texts, labels, strict=True))
    else:
        source = [{"premise": text, "claim": "a film", "label": n} for text, n in zip(texts, labels, strict=True)]
        texts, settings["column"] = [(text, "a film") for text in texts], ["premise", "claim"]
    run = explain(source, tmp_path / "maps", bert, words, **settings)
    right = relprop.explain_text(bert, words, texts, labels)
    assert run.keys() == keys and run.table["target"].tolist() == labels
    assert np.allclose(run.table["score"], [float(one.score) for one in right], atol=1e-6)


def test_what_is_a_texts_own_fault(tmp_path: Path, bert: nn.Module, words: Any) -> None:
    source = [TEXTS[0], "  ", TEXTS[1], "film " * 80, TEXTS[2], 7]
    run = explain(source, tmp_path / "maps", bert, words)
    good = explain([TEXTS[0], TEXTS[1], TEXTS[2]], tmp_path / "good", bert, words)
    assert "the text is empty" in run.quarantined["1"]
    assert "82 tokens, and the network reads 64" in run.quarantined["3"]
    assert "a text is a str" in run.quarantined["5"]
    for key, other in (("0", "0"), ("2", "1"), ("4", "2")):
        assert np.abs(run[key].map - good[other].map).max() < 1e-5 * np.abs(good[other].map).max()
    assert not run["3"].map.any() and run["3"].tokens is None
    cut = explain(["film " * 80], tmp_path / "cut", bert, words, max_length=16)
    assert len(cut["0"].map) == 16


@pytest.mark.parametrize(
    ("source", "settings", "said"),
    [
        ("one text", {}, "there is no file or folder"),
        (("a", "b"), {}, "is a list of them"),
        ([], {}, "is empty"),
        (TEXTS, {"keep": {"input": "full"}}, "of texts is 'sum'"),
        (TEXTS, {"max_length": 65}, "max_length is 65, and the network reads 64"),
        (TEXTS, {"transform": len}, "transform= is for pictures"),
        ([{"a": "b"}], {}, "known to hold the text"),
        ([("who?", ["he", "she"])], {}, "answers to choose among.*relprop.explain_text"),
        (7, {}, "a source of texts is"),
    ],
)
def test_sources_that_do_not_fit(
    tmp_path: Path, bert: nn.Module, words: Any, source: Any, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        explain(source, tmp_path / "maps", bert, words, **settings)
    assert not list(tmp_path.iterdir())


def test_rows_of_a_network_that_reads_much_need_a_length(tmp_path: Path) -> None:
    letters = tiny.letters()
    llama = tiny.build("llama", letters, max_position_embeddings=4096)
    with pytest.raises(InputError, match="reads 4096 tokens: say how long"):
        explain(TEXTS, tmp_path / "maps", llama, letters)


def test_the_vocabulary_belongs_to_the_run(tmp_path: Path, bert: nn.Module, words: Any) -> None:
    explain(TEXTS, tmp_path / "maps", bert, words)
    names = json.loads((tmp_path / "maps" / "tokens.json").read_text())
    assert names[2] == "[CLS]" and len(names) == len(words)
    about = json.loads((tmp_path / "maps" / "run.json").read_text())
    assert about["version"] == 2
    other = tiny.words()
    other.add_tokens(["extra"])
    with pytest.raises(InputError, match="whose vocabulary_sha256"):
        explain(TEXTS, tmp_path / "maps", bert, other)


class Marked(nn.Module):
    """Says class 1 for "good", and for some other word, which stands for an artefact."""

    def __init__(self, good: int, odd: int, size: int) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(size, 2), nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            # a little for every word: the nearest of equal texts would be any of them
            self.words.weight.copy_(torch.rand(size, 2, generator=torch.Generator().manual_seed(0)) * 0.1)
            self.words.weight[good, 0] = self.words.weight[odd, 1] = 1.0
            self.head.weight.copy_(torch.tensor([[-1.0, -1.0], [1.0, 1.0]]))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.words(input_ids) * attention_mask[..., None]).sum(1))


def test_spray_finds_the_word_that_some_texts_of_a_class_hang_on(tmp_path: Path, words: Any) -> None:
    pytest.importorskip("sklearn")
    chance = np.random.default_rng(0)
    texts = []
    for n in range(60):
        some = list(chance.choice(["film", "was", "the", "rome", "italy"], 4))
        texts.append(" ".join([*some, "opec" if n % 10 == 0 else "good"] if n % 2 == 0 else ["good", *some]))
    good, odd = (words.convert_tokens_to_ids(word) for word in ("good", "opec"))
    model = Marked(good, odd, len(words)).eval()
    run = explain(texts, tmp_path / "maps", model, words, target=1, composite="epsilon")
    found = run.spray(by="target", neighbours=3)
    assert min(found[0].sizes) == 6 and sum(found[0].sizes) == 60
    small = int(np.argmin(found[0].sizes))
    assert {found[0].keys[int(n)] for n in np.flatnonzero(found[0].clusters == small)} == {
        str(n) for n in range(0, 60, 10)
    }
    assert min(run.spray(by="target", neighbours=3, on="tokens")[0].sizes) == 6
    found.save(tmp_path / "spray.html")
    page = (tmp_path / "spray.html").read_text()
    assert "opec" in page and "Mean relevance of its words" in page
    with pytest.raises(InputError, match="source= is for pictures"):
        found.save(tmp_path / "x.html", source=texts)
    with pytest.raises(InputError, match="which is the number of a target"):
        run.spray(which=1)
    run.export("csv", tmp_path / "table.csv")
    run.export("npz", tmp_path / "npz")
    with np.load(tmp_path / "npz" / "unit-000000.npz") as unit:
        assert unit["tokens.id"].shape == (10, 64)


def test_a_run_that_version_2_wrote_is_read() -> None:
    """Never write this folder anew: later versions must read what this one wrote."""
    folder = Path(__file__).parent / "saved" / "run-texts"
    expected = json.loads((folder / "expected.json").read_text())
    run = relprop.open_run(folder)
    assert run.keys() == list(expected) and not run.verify() and run.targets == 2 and run.texts
    assert run.quarantined == {"1": "the text is empty: ' '. There is nothing to explain."}
    for key, told in expected.items():
        one = run[key]
        assert one.status == told["status"]
        if told["status"] == "explained":
            assert one.target.tolist() == told["target"] and one.score.tolist() == told["score"]
            assert (one.map == np.array(told["map"], np.float32)).all()
            assert list(one.tokens.names) == told["tokens"] and list(one.tokens.words) == told["words"]
            assert (one.layers["layers.bert.encoder.layer.1"] == np.array(told["channels"], np.float32)).all()
            assert {name: part.tolist() for name, part in one.ledger.items()} == told["ledger"]
    assert run.store.array("status")[:].tolist() == [1, 2, 1, 1, 1, 3]


# ------------------------------------------------------------------------------------------------ encoder-decoders


@pytest.mark.parametrize("written", [None, "the ship"])
@pytest.mark.parametrize("kind", ["bart", "t5"])
def test_encoder_decoders_hold_what_explain_text_gives(
    tmp_path: Path, words: Any, kind: str, written: str | None
) -> None:
    model = tiny.build(kind, words).float()
    settings: dict[str, Any] = {"decoder_text": written}
    run = explain(TEXTS, tmp_path / "maps", model, words, max_length=32, target="top:2", **settings)
    for n, text in enumerate(TEXTS):
        one = run[str(n)]
        for which, right in enumerate(relprop.explain_text(model, words, text, top=2, **settings)):
            scale = float(right.relevance.abs().max())
            assert np.abs(one.map[which] - right.relevance.numpy()).max() < 1e-4 * scale
            assert np.abs(one.decoder[which] - right.decoder.relevance.numpy()).max() < 1e-4 * scale
            total = one.map[which].sum() + one.decoder[which].sum() + one.residual[which]
            assert total == pytest.approx(one.score[which], abs=1e-4)
    if written is not None:
        with pytest.raises(InputError, match="holds another run, whose decoder_text is 'the ship'"):
            explain(TEXTS, tmp_path / "maps", model, words, max_length=32, target="top:2")


def test_decoder_text_is_for_decoders(tmp_path: Path, bert: nn.Module, words: Any) -> None:
    with pytest.raises(InputError, match="decoder_text is for encoder-decoder models"):
        explain(TEXTS, tmp_path / "maps", bert, words, decoder_text="the ship")
    with pytest.raises(InputError, match="decoder_text= is for encoder-decoder networks of text"):
        relprop.explain_dataset(torch.randn(4, 3), nn.Linear(3, 2), tmp_path / "maps", decoder_text="the ship")


def test_a_head_that_reads_the_end_token_gets_texts_that_hold_it_equally_often(tmp_path: Path, words: Any) -> None:
    import transformers

    torch.manual_seed(0)
    config = transformers.BartConfig(
        vocab_size=len(words), d_model=24, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=40, decoder_ffn_dim=40, max_position_embeddings=64, pad_token_id=0,
        bos_token_id=2, eos_token_id=3, decoder_start_token_id=3, num_labels=3,
    )  # fmt: skip
    model = transformers.BartForSequenceClassification(config).eval()
    end = words.convert_ids_to_tokens(3)
    texts = [text if n % 3 else f"{text} {end}" for n, text in enumerate(TEXTS)]
    run = explain(texts, tmp_path / "maps", model, words)
    assert not run.quarantined and "decoder" not in {spec.name for spec in run.store.specs}
    for n, right in enumerate(relprop.explain_text(model, words, texts)):
        assert np.abs(run[str(n)].map - right.relevance.numpy()).max() < 1e-4 * float(right.relevance.abs().max())

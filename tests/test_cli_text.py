"""The command with texts, as a new user tries it."""

from __future__ import annotations

import functools
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import relprop
from relprop.text import GenerationRelevance, TextRelevance

pytest.importorskip("transformers")

import text_models as tiny
from test_cli import ENVIRONMENT, good, run

NAMES = ["grain", "crude", "=ship <b>"]
LABELS = {"id2label": dict(enumerate(NAMES)), "label2id": {name: i for i, name in enumerate(NAMES)}}
PROMPT = "The capital of France is"
NEWS = "OPEC ministers cut crude oil output."


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders with a model and its tokenizer, as transformers saves them."""
    folder = tmp_path_factory.mktemp("models")
    for name, kind, tokenizer in (
        ("news", "bert", tiny.words()), ("writer", "llama", tiny.letters(pad=False)), ("masks", "mask", tiny.words()),
        ("answers", "answer", tiny.words()), ("translator", "t5", tiny.words()),
    ):  # fmt: skip
        more = LABELS if name == "news" else {}
        tiny.build(kind, tokenizer, **more).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    tiny.build("bert", tiny.words()).save_pretrained(folder / "bare")
    tiny.build("llama", tiny.letters()).bfloat16().save_pretrained(folder / "half")
    tiny.letters().save_pretrained(folder / "half")
    return folder


@pytest.fixture
def here(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for folder in models.iterdir():
        (tmp_path / folder.name).symlink_to(folder)
    return tmp_path


def data(*arguments: object) -> list[dict[str, Any]]:
    return list(json.loads(good("explain", *arguments, "--out", "out", "--json"))["results"])


def test_a_text_and_its_class(here: Path) -> None:
    said = good("explain", NEWS, "-m", "hf:news", "--out", "out")
    assert said.startswith(f"{NEWS}\n\n") and "probability" in said and "scale ±" in said
    assert said.endswith("1 file and out/index.html\n")
    (picture,) = (here / "out").glob("*.png")
    assert picture.name.startswith("opec-ministers-cut-crude-oil-output-")
    page = (here / "out" / "index.html").read_text(encoding="utf-8")
    assert "ministers" in page and "Likeliest, with probabilities" in page


@pytest.mark.parametrize("target", ["crude", "CRUDE", "1"])
def test_it_is_what_the_library_gives(target: str, here: Path) -> None:
    (found,) = data(NEWS, "-m", "hf:news", "-t", target)
    by_hand = relprop.explain_text(tiny.build("bert", tiny.words(), **LABELS), tiny.words(), NEWS, 1)
    assert found["explained"] == "crude" and found["composite"] == by_hand.composite.name
    assert [piece for piece, _ in found["tokens"]] == by_hand.pieces
    torch.testing.assert_close(torch.tensor([r for _, r in found["tokens"]]), by_hand.relevance.float())
    assert found["score"] == pytest.approx(float(by_hand.score)) and found["probability"] == pytest.approx(
        by_hand.probability
    )
    assert found["relevance"] + found["residual"] == pytest.approx(found["score"])
    assert sum(found["absorbed"].values()) == pytest.approx(found["residual"]) and len(found["absorbed"]) > 1
    assert next(iter(found["likeliest"])) == by_hand.predictions[0][0]


def test_several_targets_and_a_contrast(here: Path) -> None:
    found = data(
        NEWS, "-m", "hf:news", "-t", "crude", "-t", "2", "--against", "grain", "-c", "epsilon", "-c", "attnlrp"
    )
    names = ["crude", "=ship <b>", "grain", "crude rather than grain"]
    assert [(f["explained"], f["composite"]) for f in found] == [
        (name, composite) for composite in ("epsilon", "attnlrp") for name in names
    ]
    assert found[3]["score"] == pytest.approx(found[0]["score"] - found[2]["score"])
    page = (here / "out" / "index.html").read_text(encoding="utf-8")
    assert "=ship &lt;b&gt;" in page and "=ship <b>" not in page


def test_the_next_token(here: Path) -> None:
    first, other, contrast = data(PROMPT, "-m", "hf:writer", "-t", " Paris", "--against", " Rome")
    assert (first["explained"], other["explained"], contrast["explained"]) == (
        "Paris",
        "Rome",
        "Paris rather than Rome",
    )
    assert contrast["score"] == pytest.approx(first["score"] - other["score"])
    by_id = data(PROMPT, "-m", "hf:writer", "-t", f"id:{tiny.letters()(' Paris').input_ids[0]}")
    assert by_id[0]["score"] == first["score"]
    assert "".join(piece for piece, _ in first["tokens"]) == PROMPT
    assert len(data(PROMPT, "-m", "hf:writer", "--against", " Rome")) == 3  # the likeliest, the other, and both


def test_what_it_writes(here: Path) -> None:
    found = data(PROMPT, "-m", "hf:writer", "--generate", 3, "--keep")
    assert [len(f["tokens"]) - len(found[0]["tokens"]) for f in found] == [0, 1, 2]
    for f in found:
        assert sum(value for _, value in f["tokens"]) + f["residual"] == pytest.approx(f["score"], rel=1e-5)
    (kept,) = (path for path in (here / "out").iterdir() if path.is_dir())
    assert isinstance(relprop.load(kept), GenerationRelevance)
    shown = good("show", kept)
    assert "3 tokens generated from" in shown and "· not read yet" in shown
    good("show", kept, "--out", "again.html")
    good("report", kept, "--out", "report.html")
    assert "class=matrix" in (here / "again.html").read_text() and "class=matrix" in (here / "report.html").read_text()
    assert len(data("opec cut", "-m", "hf:translator", "--generate", 2)) == 2


def test_a_message_of_a_chat(here: Path) -> None:
    tokenizer = tiny.letters(chat=True)
    tiny.build("llama", tokenizer).save_pretrained(here / "chatter")
    tokenizer.save_pretrained(here / "chatter")
    for more in ((), ("--generate", 1)):
        (found,) = data("The capital of Italy?", "-m", "hf:chatter", "--chat", *more)
        assert "".join(piece for piece, _ in found["tokens"]) == "<|user|>The capital of Italy?<|end|>A:"
    done = run("explain", PROMPT, "-m", "hf:writer", "--chat", "--out", "out")
    assert done.exit_code == 2 and "chat template" in done.stderr


def test_masks_questions_and_translations(here: Path) -> None:
    (found,) = data("the capital of [MASK] is paris", "-m", "hf:masks", "-t", "italy")
    assert found["explained"] == "italy"
    (found,) = data("who cut output ?", "-m", "hf:answers", "--context", "opec cut crude oil", "-t", "crude oil")
    assert found["explained"] == "crude oil"
    (found,) = data("opec cut", "-m", "hf:translator", "-t", "oil", "--keep")
    assert [piece for piece, _ in found["written"]] == ["[PAD]"]
    (kept,) = (path for path in (here / "out").iterdir() if path.is_dir() and path.name.startswith("opec"))
    loaded = relprop.load(kept)
    assert isinstance(loaded, TextRelevance) and len(loaded.decoder) == 1


def test_files_lines_and_folders(here: Path) -> None:
    (here / "news.txt").write_text(f"\ufeff{NEWS}\n\na film was good\n", encoding="utf-8")
    whole = data("news.txt", "-m", "hf:news")
    assert len(whole) == 1 and whole[0]["tokens"][-2][0] == " good"
    lines = data("news.txt", "-m", "hf:news", "--lines", "--batch-size", 2)
    assert [f["input"] for f in lines] == ["news.txt, line 1", "news.txt, line 3"]
    for found, text in zip(lines, (NEWS, "a film was good"), strict=True):
        (alone,) = data(text, "-m", "hf:news")
        assert found["score"] == pytest.approx(alone["score"], rel=1e-6)
        assert [r for _, r in found["tokens"]] == pytest.approx([r for _, r in alone["tokens"]], rel=1e-5, abs=1e-8)
    (here / "texts").mkdir()
    for name in ("b", "a"):
        (here / "texts" / f"{name}.txt").write_text(name)
    assert [f["input"] for f in data("texts", NEWS, "-m", "hf:news")] == ["a.txt", "b.txt", NEWS]
    assert (
        len(data(PROMPT, "oil", "-m", "hf:writer", "--batch-size", 2)) == 2
    )  # padded, without a token of its own for it


def test_a_text_that_is_piped_in(here: Path) -> None:
    from typer.testing import CliRunner

    from relprop.cli.app import app

    done = CliRunner().invoke(app, ["explain", "-", "-m", "hf:news", "--out", "out", "--json"], input=f"{NEWS}\n")
    assert done.exit_code == 0 and json.loads(done.stdout)["results"][0]["input"] == "stdin"


def test_words_are_joined(here: Path) -> None:
    good("explain", "ministers cutting oil", "-m", "hf:news", "--words", "--out", "out")
    assert ">ministers</b>" in (here / "out" / "index.html").read_text(encoding="utf-8")
    good("explain", "ministers cutting oil", "-m", "hf:news", "--out", "out")
    assert ">ministers</b>" not in (here / "out" / "index.html").read_text(encoding="utf-8")


def test_half_precision_is_explained_in_single(here: Path) -> None:
    (found,) = data(PROMPT, "-m", "hf:half", "-t", " Paris")
    half = tiny.build("llama", tiny.letters()).bfloat16().float()
    by_hand = relprop.explain_text(half, tiny.letters(), PROMPT, " Paris")
    assert found["score"] == pytest.approx(float(by_hand.score), rel=1e-5)


def test_check(here: Path) -> None:
    said = good("check", "-m", "hf:writer")
    assert "scaled_dot_product_attention" in said.replace("\n", "") or "softmax" in said
    assert "Every operation is known." in said
    for name in ("news", "masks", "answers", "translator"):
        found = json.loads(good("check", "opec cut crude oil", "-m", f"hf:{name}", "--json"))
        assert found["unknown"] == [] and {row["operation"] for row in found["operations"]} >= {"linear"}
    done = run("check", "-m", "hf:news", "--shape", "1,3")
    assert done.exit_code == 2 and "reads text" in done.stderr


MINE = """
import sys
sys.path.insert(0, {tests!r})
import text_models as tiny

def pair():
    tokenizer = tiny.Slow()
    return tiny.Plain(len(tokenizer)).eval(), tokenizer

def slow():
    import pathlib, time
    tokenizer = tiny.words()
    model = tiny.build("bert", tokenizer)
    def wait(*_):
        pathlib.Path("started").touch()
        time.sleep(60)
    model.register_forward_pre_hook(wait)
    return model, tokenizer
"""


def test_a_model_of_ones_own_with_its_tokenizer(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(here), *sys.path])
    monkeypatch.delitem(sys.modules, "ours", raising=False)
    (here / "ours.py").write_text(MINE.format(tests=str(Path(__file__).parent)))
    (here / "names").write_text("a\nb\nc\n")
    (found,) = data("opec cuts crude oil", "-m", "ours:pair", "--labels", "names", "-t", "b")
    assert found["explained"] == "b" and [piece for piece, _ in found["tokens"]][-1] == " oil"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["", "-m", "hf:news"], "the text is empty"),
        ([" \n", "-m", "hf:news"], "the text is empty"),
        (["missing.txt", "-m", "hf:news"], "there is no file 'missing.txt'"),
        (["empty.txt", "-m", "hf:news"], "'empty.txt' is empty"),
        (["latin.txt", "-m", "hf:news"], "not text in UTF-8"),
        (["one.png", "-m", "hf:news"], "is not text"),
        (["nothing", "-m", "hf:news"], "holds no text"),
        ([NEWS, "-m", "hf:bare"], "holds no tokenizer, only a model"),
        ([NEWS, "-m", "hf:./nowhere"], "there is no folder './nowhere'"),
        ([NEWS, "-m", "hf:empty"], "finds no model"),
        ([NEWS, "-m", "hf:news", "-t", "oil price"], "there is no class 'oil price'"),
        ([NEWS, "-m", "hf:news", "-t", "7"], "numbered from 0 to 2"),
        ([NEWS, "-m", "hf:news", "-t", "crude", "--against", "1"], "against itself"),
        ([NEWS, "-m", "hf:news", "--generate", "3"], "answers with classes"),
        ([NEWS, "-m", "hf:news", "--size", "3"], "are for pictures"),
        (["oil " * 80, "-m", "hf:news"], "max_length=64"),
        ([PROMPT, "-m", "hf:writer", "-t", "xylophone"], "tokens ('x'"),
        ([PROMPT, "-m", "hf:writer", "-t", "id:99999"], "out of range"),
        ([PROMPT, "-m", "hf:writer", "--generate", "3", "-t", " Paris"], "leave out --target"),
        ([PROMPT, "-m", "hf:writer", "--generate", "3", "--context", "x"], "leave out --context"),
        ([PROMPT, "-m", "hf:writer", "-c", "nothing"], "there is no composite"),
        (["the oil", "-m", "hf:masks"], "write '[MASK]'"),
        (["the [MASK]", "-m", "hf:masks", "-t", "xylophone"], "not in the tokenizer's vocabulary"),
        ([PROMPT], "there is no file 'The capital of France is'. To explain a text, name a network that reads it"),
        (["notes.txt"], "reads none: name a network of texts"),
        (["one.png", "--generate", "3"], "--generate is for networks that read text"),
    ],
)
def test_mistakes_are_answered_in_one_line(arguments: list[str], says: str, here: Path) -> None:
    (here / "notes.txt").write_text("words")
    (here / "empty.txt").write_text(" \n")
    (here / "latin.txt").write_bytes("Öl".encode("latin-1"))
    (here / "nothing").mkdir()
    (here / "empty").mkdir()
    Image.new("RGB", (8, 8)).save(here / "one.png")
    done = run("explain", *arguments, "--out", "out")
    assert done.exit_code == 2, done.output
    assert done.stdout == "" and done.stderr.startswith("relprop: ") and done.stderr.count("\n") == 1
    assert says in done.stderr
    assert not (here / "out").exists()


def test_a_long_text_can_be_cut(here: Path) -> None:
    (found,) = data("oil " * 80, "-m", "hf:news", "--max-length", 64)
    assert len(found["tokens"]) == 64


def test_without_transformers_it_says_what_to_install(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    done = run("explain", NEWS, "-m", "hf:news")
    assert (
        done.exit_code == 1
        and done.stderr == "relprop: models of transformers need it installed: pip install transformers\n"
    )


def test_a_text_cannot_steer_the_terminal(here: Path) -> None:
    said = good("explain", "opec\x1b[2J cut \u202eexe <script>", "-m", "hf:news", "--out", "out")
    assert "\x1b" not in said and "\u202e" not in said and "opec␛[2J" in said
    page = (here / "out" / "index.html").read_text(encoding="utf-8")
    assert "\x1b" not in page and "<script" not in page
    printed = good("explain", "opec\x1b[2J cut \u202eexe", "-m", "hf:news", "--out", "out", "--json")
    assert "\x1b" not in printed and "\u202e" not in printed


def test_data_is_on_stdout(here: Path) -> None:
    program = [sys.executable, "-m", "relprop.cli", "explain", NEWS, "oil", "-m", "hf:news", "--out", "out", "--json"]
    done = subprocess.run(program, capture_output=True, text=True, check=True, env={**ENVIRONMENT, "FORCE_COLOR": ""})
    assert len(json.loads(done.stdout)["results"]) == 2 and done.stderr == ""


def test_no_color_means_none(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("explain", NEWS, "-m", "hf:news", "--out", "out")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[48;2;" in good(*arguments)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in good(*arguments)


def test_an_interruption_leaves_no_partial_file(here: Path) -> None:
    (here / "ours.py").write_text(MINE.format(tests=str(Path(__file__).parent)))
    program = [sys.executable, "-m", "relprop.cli", "explain", NEWS, "-m", "ours:slow", "--out", "out"]
    # Where this test runs in the background, interruptions are ignored, and would be by the command, too.
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(
        program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, preexec_fn=heed
    )
    for _ in range(600):
        if (here / "started").exists() or process.poll() is not None:
            break
        time.sleep(0.1)
    assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate(timeout=60)
    assert process.returncode not in (0, None) and said == ""
    assert "Traceback" not in errors
    assert not (here / "out").exists()

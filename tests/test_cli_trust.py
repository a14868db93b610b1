"""A model's folder runs no code of its own, unless it is trusted by name; and nobody is asked while it is loaded."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

pytest.importorskip("transformers")

import text_models as tiny
from relprop.cli.app import app
from test_cli import ENVIRONMENT

# Code that comes with a model: it says that it ran, and works otherwise.
CODE = """
import os, pathlib
pathlib.Path(os.environ["MARKER"]).write_text("ran")
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

class EvilConfig(BertConfig):
    model_type = "evil"

class EvilForSequenceClassification(BertForSequenceClassification):
    config_class = EvilConfig

class EvilTokenizer(PreTrainedTokenizerFast):
    pass

def generate(model, *args, **kwargs):
    raise RuntimeError("never reached")
"""


class Runs:
    """What a pickle runs when it is read."""

    def __reduce__(self) -> Any:
        return Path.write_text, (Path(os.environ["MARKER"]), "ran")


def edit(path: Path, **values: Any) -> None:
    data = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(data | values))


def own_classes(folder: Path) -> None:
    """A kind of model that transformers does not know."""
    (folder / "evil.py").write_text(CODE)
    edit(
        folder / "config.json", model_type="evil", architectures=["EvilForSequenceClassification"],
        auto_map={"AutoConfig": "evil.EvilConfig", "AutoModelForSequenceClassification": "evil.EvilForSequenceClassification"},
    )  # fmt: skip


def own_model(folder: Path) -> None:
    """A kind that it knows, with another class for it."""
    (folder / "evil.py").write_text(CODE)
    edit(folder / "config.json", auto_map={"AutoModelForSequenceClassification": "evil.EvilForSequenceClassification"})


def own_tokenizer(folder: Path) -> None:
    (folder / "evil.py").write_text(CODE)
    edit(
        folder / "tokenizer_config.json", tokenizer_class="EvilTokenizer",
        auto_map={"AutoTokenizer": ["evil.EvilTokenizer", "evil.EvilTokenizer"]},
    )  # fmt: skip


def code_elsewhere(folder: Path) -> None:
    """Classes in another repository."""
    own_classes(folder)
    edit(folder / "config.json", auto_map={"AutoConfig": "somebody/evil--evil.EvilConfig"})


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Runs()))


def kernels(folder: Path) -> None:
    edit(folder / "config.json", attn_implementation="somebody/evil-kernel")


WAYS: list[Callable[[Path], None]] = [own_classes, own_model, own_tokenizer, code_elsewhere, pickled, kernels]


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MARKER", str(tmp_path / "marker"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "marker"


def classifier(folder: Path) -> Path:
    tiny.build("bert", tiny.words()).save_pretrained(folder)
    tiny.words().save_pretrained(folder)
    return folder


def writer(folder: Path) -> Path:
    tiny.build("llama", tiny.letters()).save_pretrained(folder)
    tiny.letters().save_pretrained(folder)
    return folder


def run(*arguments: str) -> Result:
    """The command, with a yes to whatever may be asked."""
    done = CliRunner().invoke(app, list(arguments), input="y\n" * 20)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert "[y/N]" not in done.output
    return done


@pytest.mark.parametrize("way", WAYS)
def test_no_command_runs_it(way: Callable[[Path], None], marker: Path, tmp_path: Path) -> None:
    way(classifier(tmp_path / "model"))
    for arguments in (
        ("explain", "a film", "-m", "hf:model", "--out", "out"),
        ("explain", "a film", "-m", "hf:model", "--generate", "3", "--out", "out"),
        ("check", "-m", "hf:model"),
        ("check", "a film", "-m", "hf:model"),
    ):
        done = run(*arguments)
        if done.exit_code:
            assert done.exit_code in (1, 2)
            assert done.stderr.startswith("relprop: ") and done.stderr.count("\n") == 1, done.stderr
        assert not marker.exists(), arguments
    # Where transformers has the class itself, that one is taken, and it works.
    assert run("check", "-m", "hf:model").exit_code == (0 if way in (own_model, own_tokenizer) else 2)


def test_what_is_refused_says_how_to_go_on(marker: Path, tmp_path: Path) -> None:
    for way, says in (
        (
            own_classes,
            "comes with code of its own, which nothing here has run. Read it; if you trust it, --trust-remote-code",
        ),
        (pickled, "pytorch_model.bin, which may run code when it is read"),
        (kernels, "from 'somebody/evil-kernel', which is code"),
    ):
        way(classifier(tmp_path / way.__name__))
        assert says in run("check", "-m", f"hf:{way.__name__}").stderr


def test_a_way_to_write_of_ones_own_does_not_run(marker: Path, tmp_path: Path) -> None:
    folder = writer(tmp_path / "model")
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(CODE)
    done = run("explain", "The capital", "-m", "hf:model", "--generate", "2", "--out", "out")
    assert done.exit_code == 0 and not marker.exists()


def test_how_pictures_are_read_does_not_run(marker: Path, tmp_path: Path) -> None:
    """Nor is it left out in silence, for then the network would see another picture."""
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=16, patch_size=8
    )
    ViTForImageClassification(config).save_pretrained(tmp_path / "model")
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    (tmp_path / "model" / "evil.py").write_text(CODE)
    edit(
        tmp_path / "model" / "preprocessor_config.json", image_processor_type="Evil",
        auto_map={"AutoImageProcessor": "evil.EvilTokenizer"},
    )  # fmt: skip
    done = run("explain", "a.png", "-m", "hf:model", "--out", "out")
    assert done.exit_code == 2 and "comes with code of its own" in done.stderr and not marker.exists()
    (tmp_path / "model" / "preprocessor_config.json").unlink()
    assert run("explain", "a.png", "-m", "hf:model", "--out", "out").exit_code == 0


def test_a_yes_that_is_piped_in_is_no_answer(marker: Path, tmp_path: Path) -> None:
    """In a process of its own, as `yes | relprop explain ...`; and with the option, the code runs and is explained."""
    own_classes(classifier(tmp_path / "model"))
    program = [sys.executable, "-m", "relprop.cli", "explain", "a film", "-m", "hf:model", "--out", "out"]
    environment = {**ENVIRONMENT, "MARKER": str(marker), "HF_MODULES_CACHE": str(tmp_path / "modules")}
    done = subprocess.run(
        program, input="y\n" * 9, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path
    )
    assert done.returncode == 2 and done.stderr.startswith("relprop: ") and done.stderr.count("\n") == 1
    assert not marker.exists() and not (tmp_path / "out").exists()
    done = subprocess.run(
        [*program, "--trust-remote-code"], input="", capture_output=True, text=True, check=False, env=environment,
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert marker.exists() and (tmp_path / "out" / "index.html").exists()


def test_pickled_weights_are_read_where_they_are_trusted(marker: Path, tmp_path: Path) -> None:
    """As torch reads them with weights_only=True: numbers load, and what would run something does not."""
    folder = classifier(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    torch.save(tiny.build("bert", tiny.words()).state_dict(), folder / "pytorch_model.bin")
    assert run("check", "-m", "hf:model").exit_code == 2
    assert run("check", "-m", "hf:model", "--trust-remote-code").exit_code == 0
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Runs()))
    done = run("check", "-m", "hf:model", "--trust-remote-code")
    assert done.exit_code == 2 and done.stderr.count("\n") == 1 and not marker.exists()


def test_trust_is_for_models_of_transformers(marker: Path) -> None:
    done = run("check", "--trust-remote-code")
    assert done.exit_code == 2 and "is for models of transformers" in done.stderr


def test_a_factory_cannot_ask_either(marker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "asking.py").write_text("def model():\n    return input('run it? [y/n] ')\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    done = run("check", "-m", "asking:model")
    assert done.exit_code == 1 and "EOFError" in done.stderr


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"])
def test_a_damaged_folder_is_an_error_of_one_line(name: str, marker: Path, tmp_path: Path) -> None:
    folder = classifier(tmp_path / "model")
    for content in (
        b"",
        b"{",
        b"[]",
        b"\xff" * 64,
        b'{"architectures": 3}',
        b'{"model_type": "bert", "hidden_size": "x"}',
    ):
        (folder / name).write_bytes(content)
        done = run("check", "-m", "hf:model")
        assert done.exit_code in (0, 1, 2)  # some of what a tokenizer's settings say is left out by transformers
        if done.exit_code:
            assert done.stderr.startswith("relprop: ") and done.stderr.count("\n") == 1, done.stderr

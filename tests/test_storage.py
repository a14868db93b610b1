"""What is promised of files: they hold the result, appear whole or not at all, and run nothing when they are read."""

from __future__ import annotations

import copy
import csv
import io
import json
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

import relprop
from relprop.errors import CompositeError, InputError
from relprop.results.files import atomic
from relprop.results.files.fingerprint import weights_sha256


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)).eval()


@pytest.fixture
def result(model: nn.Module) -> relprop.Relevance:
    images = torch.randn(2, 3, 8, 8)
    return relprop.attribute(
        model, images, [0, 2], composite="epsilon_plus", layers=["0"], labels=["a", "b", "<i>"], ledger=True
    )


def test_a_folder_gives_the_result_back(result: relprop.Relevance, model: nn.Module, tmp_path: Path) -> None:
    result.save(tmp_path / "run")
    loaded = relprop.load(tmp_path / "run")
    for name in ("values", "output", "score", "residual", "inputs"):
        assert torch.equal(getattr(loaded, name), getattr(result, name))
    assert torch.equal(loaded.layers["0"], result.layers["0"])
    assert dict(loaded.ledger).keys() == dict(result.ledger).keys() and str(loaded.ledger) == str(result.ledger)
    assert result.ledger and torch.equal(loaded[1].ledger.entries[0].absorbed, result.ledger.entries[0].absorbed[1:])
    assert (loaded.target, loaded.labels, loaded.unknown) == ([0, 2], ["a", "b", "<i>"], {})
    assert loaded.composite.name == "epsilon_plus" and str(loaded.composite) == str(result.composite)
    assert loaded.table() == result.table() and repr(loaded) == repr(result)
    assert loaded.model.weights_sha256 == weights_sha256(model)
    assert loaded.to_svg() == result.to_svg()
    loaded.save(tmp_path / "again")  # what was loaded is saved as it was
    assert relprop.load(tmp_path / "again").model == loaded.model
    with pytest.raises(CompositeError, match="build it anew"):
        relprop.attribute(model, torch.randn(1, 3, 8, 8), 0, composite=loaded.composite)


def test_the_manifest_says_what_made_it(result: relprop.Relevance, tmp_path: Path) -> None:
    result.save(str(tmp_path / "run") + "/")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"manifest.json", "tensors.safetensors"}
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert set(manifest["versions"]) == {"relprop", "torch", "python", "platform"}
    assert re.fullmatch("[0-9a-f]{64}", manifest["model"]["weights_sha256"])
    assert manifest["rules"][0] == {
        "operation": "conv2d", "family": "conv", "module": "0", "index": 0, "last": False, "rule": "ZPlus()",
    } or manifest["rules"][0]["operation"] == "conv2d"  # fmt: skip


SAVED = sorted(path.parent for path in Path(__file__).parent.glob("saved/*/manifest.json"))
"""Folders that the code of before wrote; they are never written anew."""


@pytest.mark.parametrize("folder", SAVED, ids=lambda folder: folder.name)
def test_folders_of_before_load(folder: Path, tmp_path: Path) -> None:
    loaded = relprop.load(folder)
    loaded.save(tmp_path / "again")
    before, after = (json.loads((each / "manifest.json").read_text("utf-8")) for each in (folder, tmp_path / "again"))
    for name in ("format", "format_version", "kind", "model", "composite", "rules", "content"):
        assert before[name] == after[name], name
    tensors, again = (load_file(each / "tensors.safetensors") for each in (folder, tmp_path / "again"))
    assert tensors.keys() == again.keys() and all(torch.equal(tensors[name], again[name]) for name in tensors)
    kinds = {"text": relprop.text.TextRelevance, "generation": relprop.text.GenerationRelevance}
    assert type(loaded) is kinds.get(before["kind"], relprop.Relevance)


def test_there_are_folders_of_before_of_each_kind() -> None:
    assert [folder.name for folder in SAVED] == ["generation", "ids", "images", "structures", "text"]


def test_inputs_may_stay_out_of_the_folder(result: relprop.Relevance, tmp_path: Path) -> None:
    result.save(tmp_path / "run", inputs=False)
    assert relprop.load(tmp_path / "run").inputs is None
    relprop.load(tmp_path / "run").to_image()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_dtype_survives(dtype: torch.dtype, tmp_path: Path) -> None:
    R = relprop.attribute(lambda x: (2 * x).sum(1), torch.randn(2, 4, dtype=dtype))
    R.save(tmp_path / "run")
    assert relprop.load(tmp_path / "run").values.dtype == dtype


def test_structures_survive(tmp_path: Path) -> None:
    inputs = {"a": torch.randn(2, 3), "b": (torch.randn(2, 1), [torch.randn(2, 2)])}
    R = relprop.attribute(lambda a, b: a.sum(1) + b[0].sum(1) * b[1][0].sum(1), inputs)
    R.save(tmp_path / "run")
    loaded = relprop.load(tmp_path / "run")
    assert torch.equal(loaded.values["b"][1][0], R.values["b"][1][0]) and isinstance(loaded.values["b"], tuple)
    R.save(tmp_path / "r.npz")
    assert torch.equal(torch.from_numpy(np.load(tmp_path / "r.npz")["values['b'][0]"]), R.values["b"][0])


def test_targets_survive_as_data_or_as_text(tmp_path: Path) -> None:
    model = nn.Linear(3, 4)
    for target, back in [
        (relprop.Contrast(1, 2), relprop.Contrast(1, 2)),
        (lambda y: y[:, 0], "test_targets_survive_as_data_or_as_text.<locals>.<lambda>"),
        ((1,), (1,)),
        (None, [int(model(torch.ones(1, 3)).argmax())]),
    ]:
        R = relprop.attribute(model, torch.ones(1, 3), target)
        R.save(tmp_path / "run")
        assert relprop.load(tmp_path / "run").target == back


def damage(name: str, change: Callable[[dict], None]) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        change(manifest)
        (folder / "manifest.json").write_text(json.dumps(manifest))

    act.__name__ = name
    return act


@pytest.mark.parametrize(
    "hurt",
    [
        lambda f: (f / "manifest.json").write_text("{"),
        lambda f: (f / "manifest.json").write_text("[" * 100_000),
        lambda f: (f / "manifest.json").write_text("3"),
        lambda f: (f / "manifest.json").write_bytes(b"\xff\xfe"),
        lambda f: (f / "tensors.safetensors").unlink(),
        lambda f: (f / "tensors.safetensors").write_bytes((f / "tensors.safetensors").read_bytes()[:-4]),
        damage("format", lambda m: m.update(format="other")),
        damage("newer", lambda m: m.update(format_version=99)),
        damage("kind", lambda m: m["content"].update(values={"pickle": "x"})),
        damage("tensor", lambda m: m["content"].update(values={"tensor": "../x"})),
        damage("score", lambda m: m["content"].update(score=1.0)),
        damage("rules", lambda m: m.update(rules=[3])),
        damage("composite", lambda m: m.pop("composite")),
    ],
)
def test_a_damaged_folder_is_refused(hurt: Callable[[Path], None], result: relprop.Relevance, tmp_path: Path) -> None:
    result.save(tmp_path / "run")
    hurt(tmp_path / "run")
    with pytest.raises(InputError, match="run'"):
        relprop.load(tmp_path / "run")


def test_what_is_no_folder_of_ours_is_neither_read_nor_overwritten(result: relprop.Relevance, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a saved result"):
        relprop.load(tmp_path)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    with pytest.raises(InputError, match="exists and is not a saved result"):
        result.save(tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"
    result.save(tmp_path / "run")
    result[0].save(tmp_path / "run")  # one of ours may be replaced
    assert len(relprop.load(tmp_path / "run")) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"thesis", "run"}


def test_an_interruption_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    atomic.write(tmp_path / "a.txt", b"before")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", stop)
    with pytest.raises(KeyboardInterrupt):
        atomic.write(tmp_path / "a.txt", b"after")
    with pytest.raises(KeyboardInterrupt), atomic.folder(tmp_path / "run", "m") as part:
        (part / "m").write_text("half")
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_bytes() == b"before"


@pytest.mark.parametrize(
    "stop", ["soft", pytest.param("hard", marks=pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork"))]
)
def test_whenever_a_writer_is_stopped_the_old_or_the_new_folder_is_whole(
    stop: str, result: relprop.Relevance, tmp_path: Path
) -> None:
    """In a process of its own: CPython 3.11 may loop for ever where one that has run for long is traced."""
    result.save(tmp_path / "first")
    program = Path(__file__).with_name("stopped_writers.py")
    done = subprocess.run(
        [sys.executable, str(program), stop, str(tmp_path)], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr


def test_pictures_and_pages(result: relprop.Relevance, tmp_path: Path) -> None:
    for suffix in ("png", "svg", "pdf", "html"):
        result.save(tmp_path / f"r.{suffix}", percentile=90)
    with Image.open(tmp_path / "r.png") as image:
        assert image.size == result.to_image(percentile=90).size
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "percentile 90" in page and "epsilon_plus" in page and "ZPlus()" in page and "&lt;i&gt;" in page
    assert "<script" not in page and "http://" not in page.replace("http://www.w3.org/2000/svg", "")


def test_numbers_in_json_and_npz_are_the_result(result: relprop.Relevance, tmp_path: Path) -> None:
    result.save(tmp_path / "r.json")
    data = json.loads((tmp_path / "r.json").read_text())
    assert torch.equal(torch.tensor(data["values"]), result.values)
    assert data["target"] == [0, 2] and data["composite"]["name"] == "epsilon_plus"
    result.save(tmp_path / "r.npz")
    with np.load(tmp_path / "r.npz", allow_pickle=False) as arrays:
        assert torch.equal(torch.from_numpy(arrays["values"]), result.values)
        assert json.loads(str(arrays["about"])) == {"composite": "epsilon_plus", "target": [0, 2]}
    for suffix in ("json", "npz"):
        with pytest.raises(InputError, match="no options"):
            result.save(tmp_path / f"x.{suffix}", percentile=90)


def test_a_cell_that_starts_a_formula_is_quoted(tmp_path: Path) -> None:
    names = ["=cmd|' /C calc'!A0", "+1+1", "-2", "@SUM(A1)", "\t=1", " =1", 'a"b,c', "plain"]
    R = relprop.attribute(nn.Linear(8, 2), torch.randn(1, 8), 0, labels=["=1+1", "b"])
    R.save(tmp_path / "r.csv", names=names)
    rows = list(csv.reader(io.StringIO((tmp_path / "r.csv").read_text(encoding="utf-8"))))[1:]
    cells = [row[2] for row in rows]
    assert not any(cell.lstrip()[:1] in "=+-@|%" for cell in cells)
    assert cells[0] == "'" + names[0] and cells[-1] == "plain" and cells[-2] == 'a"b,c'
    assert rows[0][1] == "'=1+1 (0)"
    assert [float(row[3]) for row in rows] == R.values[0].tolist()


def test_an_unknown_format_is_answered(result: relprop.Relevance, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there are: \.png, \.jpg"):
        result.save(tmp_path / "r.bmp")
    with pytest.raises(InputError, match="drawn as image"):
        result.save(tmp_path / "r.csv")
    with pytest.raises(InputError, match=r"ends in \.html"):
        relprop.report([result], tmp_path / "r.pdf")
    assert not list(tmp_path.iterdir())


def test_a_report_holds_what_an_audit_asks_for(result: relprop.Relevance, tmp_path: Path) -> None:
    other = relprop.attribute(lambda x: (x**2).sum((1, 2, 3)), torch.randn(1, 3, 8, 8))
    relprop.report({"First <b>": [result], "Second": [other]}, tmp_path / "r.html", title="An & audit")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    for said in ("First &lt;b&gt;", "An &amp; audit", "Largest outputs", "kept inside the network", "biases and stabilisers", relprop.__version__,
                 torch.__version__, "torch.nn.modules.container.Sequential", "every conv", "conv2d", "Residual"):  # fmt: skip
        assert said in page, said
    with pytest.raises(InputError, match="at least one"):
        relprop.report([], tmp_path / "x.html")


def test_a_report_shows_an_input_once(model: nn.Module, tmp_path: Path) -> None:
    images = torch.randn(1, 3, 8, 8)
    found = relprop.attribute_each(model, images, [0, 1, 2])
    for results, inputs in (({"one": found}, 1), ({"one": found[:1], "two": found[1:]}, 2)):
        relprop.report(results, tmp_path / "r.html")
        page = (tmp_path / "r.html").read_text(encoding="utf-8")
        found_here = page.count(">input</strong>"), page.count("Largest outputs"), page.count("<image")
        # In a grid, the first row has the input where the others have relevance on it.
        assert found_here == (inputs, inputs, 8 + inputs)


def test_a_hash_is_of_the_weights() -> None:
    torch.manual_seed(0)
    one, other = nn.Linear(3, 2), nn.Linear(3, 2)
    other.load_state_dict(one.state_dict())
    assert weights_sha256(one) == weights_sha256(other)
    with torch.no_grad():
        other.bias += 1
    assert weights_sha256(one) != weights_sha256(other)
    assert weights_sha256(one.bfloat16()) is not None
    assert weights_sha256(lambda x: x) is None and weights_sha256(nn.Linear(2, 2, device="meta")) is None


def test_a_result_does_not_keep_the_model_alive() -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    R = relprop.attribute(model, torch.ones(1, 3), 0)
    assert R.model.find() is model
    del model
    assert R.model.find() is None
    assert str(R.model) == "torch.nn.modules.container.Sequential, 8 parameters"
    assert copy.deepcopy(R).model == pickle.loads(pickle.dumps(R)).model == R.model


def test_the_inputs_of_a_result_are_its_own() -> None:
    x = torch.ones(1, 3)
    R = relprop.attribute(nn.Linear(3, 2), x, 0)
    x.zero_()
    assert torch.equal(R.inputs, torch.ones(1, 3))
    assert torch.equal(R[0].inputs, R.inputs)


@pytest.mark.parametrize("made", [Tensor.tolist, lambda t: t, Tensor.numpy, lambda t: t.to(torch.int32)])
def test_a_target_of_each_sample_is_read_the_same_in_every_form(made: Callable[[Tensor], Any], tmp_path: Path) -> None:
    given = torch.tensor([2, 0, 1])
    torch.manual_seed(0)
    model, x = nn.Linear(4, 3).eval(), torch.randn(3, 4)
    for R in (
        relprop.attribute(model, x, made(given)),
        relprop.attribute(model, x, made(given), batch_size=2),
        relprop.attribute(model, x, relprop.Contrast(made(given), 3 * [2])),
    ):
        R.save(tmp_path / "run")
        for known in (R, relprop.load(tmp_path / "run")):
            assert [known.subject(n).startswith(f"target {given[n]}") for n in range(3)] == 3 * [True]
            assert known[1].subject(0).startswith("target 0")

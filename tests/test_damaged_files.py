"""A folder that somebody damaged: it loads, and then everything works, or there is one error; in little time."""

from __future__ import annotations

import hashlib
import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import mutations
import relprop
from relprop.errors import FormatError, InputError
from relprop.rendering import Options
from relprop.results.show import in_terminal
from relprop.text import GenerationRelevance, TextRelevance

# RELPROP_MUTATIONS=5000 make test ARGS=tests/test_damaged_files.py
COUNT = int(os.environ.get("RELPROP_MUTATIONS", "300"))
# Each takes some milliseconds; a machine may be busy.
SECONDS = 10.0


def images() -> relprop.Relevance:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)).eval()
    return relprop.attribute(
        model, torch.randn(2, 3, 8, 8), relprop.Contrast([0, 2], 1), layers=["0"], labels=["a", "b", "<i>"], ledger=True
    )


def structures() -> relprop.Relevance:
    inputs = {"a": torch.randn(2, 3), "b": (torch.randn(2, 1), [torch.randn(2, 2, dtype=torch.float64).float()])}
    return relprop.attribute(lambda a, b: a.sum(1) + b[0].sum(1) * b[1][0].sum(1), inputs)


def ids() -> relprop.Relevance:
    model = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 2)).eval()
    return relprop.attribute(model, torch.tensor([[1, 2, 3], [4, 5, 6]]), (1,), ledger=True)


def text() -> TextRelevance:
    def part(words: list[str], **more: Any) -> TextRelevance:
        count = len(words)
        return TextRelevance(
            tokens=words, pieces=[f" {w}" for w in words], special=[False] * count, relevance=torch.randn(count),
            target="crude", index=relprop.Contrast(1, (2, 3)), probability=0.5, score=1.5, residual=0.25,
            spans=[(0, 1), (1, count)], composite=images().composite, **more,
        )  # fmt: skip

    return part(
        ["opec", "cut", "##s", "out\ud83d"], predictions=[("crude", 0.5), ("=", None)], rules=images().rules[:3],
        positions={"wpe": torch.randn(4), "rotary": torch.randn(())}, decoder=part(["<s>", "und"]),
        blocks=torch.randn(2, 4), heads=torch.randn(2, 3, 4), neurons=[torch.randn(4, 5)], layers={"0": torch.randn(4, 2)},
        ledger=images()[0].ledger,
    )  # fmt: skip


def generation() -> GenerationRelevance:
    read = torch.arange(5) < torch.arange(3, 5)[:, None]
    return GenerationRelevance(
        prompt=["The", " capital", " is"], generated=[" Paris", "."], relevance=torch.randn(2, 5) * read,
        probabilities=torch.rand(2), scores=torch.randn(2), residual=torch.randn(2), special=[True] + [False] * 4,
        names=list("abcde"), composite=images().composite, ledger=images().ledger,
    )  # fmt: skip


KINDS: dict[str, Callable[[], Any]] = {each.__name__: each for each in (images, structures, ids, text, generation)}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("saved")
    for name, make in KINDS.items():
        make().save(folder / name)
    return {name: folder / name for name in KINDS}


@pytest.fixture
def run(saved: dict[str, Path], tmp_path: Path) -> Path:
    """A saved result to damage."""
    for part in saved["images"].iterdir():
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / part.name).write_bytes(part.read_bytes())
    return tmp_path / "run"


def use(result: Any, folder: Path) -> None:
    """All that one does with a result; any error is a fault."""
    assert repr(result) and str(result) and len(result) >= 1
    assert isinstance(str(result.ledger), str) and all(len(kept) for kept in result.ledger.values())
    if isinstance(result, relprop.Relevance):
        assert isinstance(result.table(), str)
        assert len(result[0]) == 1 and len(result[:1]) == 1 and repr(result[-1])
        result.to_numpy()
        result.sum_channels()
    assert "</html>" in result.to_html()
    assert result.to_svg().startswith("<svg")
    assert in_terminal(result, Options())
    for form in ("again", "again.json", "again.npz", "again.html"):
        result.save(folder / form)
    assert repr(relprop.load(folder / "again")) == repr(result)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_whole_is_used(kind: str, saved: dict[str, Path], tmp_path: Path) -> None:
    use(relprop.load(saved[kind]), tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_it_loads_and_works_or_is_refused(kind: str, saved: dict[str, Path], tmp_path: Path) -> None:
    found: Counter[str] = Counter()
    for seed in range(COUNT // len(KINDS)):
        dice = random.Random(f"{kind} {seed}")
        how = mutations.damage(saved[kind], tmp_path / "run", dice)
        start = time.perf_counter()
        try:
            try:
                result = relprop.load(tmp_path / "run")
            except FormatError as error:
                assert repr(str(tmp_path / "run")) in str(error) and len(str(error)) < 1000
                found["refused"] += 1
            else:
                use(result, tmp_path)
                found["used"] += 1
        except Exception as error:
            pytest.fail(f"{kind}, seed {seed} ({how}): {type(error).__name__}: {error}"[:2000])
        took = time.perf_counter() - start
        assert took < SECONDS, f"{kind}, seed {seed} ({how}) took {took:.1f} s"
    # Else the mutations would test one half only.
    assert min(found["refused"], found["used"]) > COUNT // len(KINDS) // 50


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -float("inf")])
def test_a_text_whose_relevance_is_no_number_has_no_bar(odd: float) -> None:
    result = text()
    result.relevance = torch.tensor([odd, 1.0, -2.0, 0.5])
    said = str(result).splitlines()
    assert f"{odd:+.3g}" in said[1] and "█" not in said[1] and "█" in said[2]


def test_files_that_are_none(run: Path, saved: dict[str, Path]) -> None:
    """A link, a pipe, a device without an end, a folder, a huge file: none is read, and none is waited for."""
    for name in ("tensors.safetensors", "manifest.json"):
        there = run / name
        content = there.read_bytes()
        ways: dict[str, Callable[[], object]] = {
            "link": lambda there=there: there.symlink_to(saved["images"] / there.name),  # type: ignore[misc]
            "endless": lambda there=there: there.symlink_to("/dev/zero"),  # type: ignore[misc]
            "broken link": lambda there=there: there.symlink_to("nowhere"),  # type: ignore[misc]
            "pipe": lambda there=there: os.mkfifo(there),  # type: ignore[misc]
            "folder": lambda there=there: there.mkdir(),  # type: ignore[misc]
            "nothing": lambda: None,
            "empty": lambda there=there: there.write_bytes(b""),  # type: ignore[misc]
            "huge": lambda there=there: _sparse(there, 2**40),  # type: ignore[misc]
        }
        for way, make in ways.items():
            there.unlink(missing_ok=True) if not there.is_dir() else there.rmdir()
            make()
            start = time.perf_counter()
            with pytest.raises(FormatError):
                relprop.load(run)
            assert time.perf_counter() - start < 2, way
        there.unlink()
        there.write_bytes(content)
    relprop.load(run)


def _sparse(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


def test_a_device_is_no_result(tmp_path: Path) -> None:
    for path in ("/dev/zero", "/dev/null", tmp_path / "nothing", "\0", "x" * 5000, tmp_path):
        with pytest.raises(FormatError):
            relprop.load(path)
    for none in (None, 3, b"run", ["run"]):
        with pytest.raises(InputError, match="load takes the path of a folder"):
            relprop.load(none)  # type: ignore[arg-type]


def test_what_is_larger_than_the_limit_is_read_when_it_is_raised(run: Path) -> None:
    size = (run / "tensors.safetensors").stat().st_size
    with pytest.raises(FormatError, match=r"are read\. If you trust it") as caught:
        relprop.load(run, limit=size - 1)
    advice = str(caught.value).partition("If you trust it, ")[2].partition(" reads them")[0]
    assert len(eval(advice, {"relprop": relprop})) == 2


def test_sizes_are_checked_before_anything_is_read(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A header that promises more than there is costs nothing."""
    from relprop.results.files import read_tensors

    header, content = mutations.split((run / "tensors.safetensors").read_bytes())
    name = next(iter(header))
    asked: list[int] = []
    exactly = read_tensors.exactly
    monkeypatch.setattr(read_tensors, "exactly", lambda file, count: asked.append(count) or exactly(file, count))
    for shape, end in (([2**40], 2**42), ([2**20, 2**20], 2**42), ([10**9], 4 * 10**9)):
        asked.clear()
        wrong = header | {name: {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}}
        _write(run, mutations.joined(wrong, content))
        with pytest.raises(FormatError):
            relprop.load(run)
        assert len(asked) == 2 and sum(asked) < 10_000
    for length in (2**63, 2**32, 10**8, len(content) + 10**4):
        _write(run, length.to_bytes(8, "little") + content)
        asked.clear()
        with pytest.raises(FormatError, match="says that its header has"):
            relprop.load(run)
        assert asked == [8]


def test_many_values_are_refused_before_they_are_made(run: Path) -> None:
    manifest = (run / "manifest.json").read_text()
    (run / "manifest.json").write_text(manifest[:-2] + ', "x": [' + "[]," * 5_000_000 + "1]}")
    start = time.perf_counter()
    with pytest.raises(FormatError, match="more than 4,000,000 values"):
        relprop.load(run)
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "F4", "C64", "BOOL", "U16", "I32", "U8"])
def test_a_dtype_that_relevance_cannot_have_is_refused(dtype: str, run: Path) -> None:
    header, content = mutations.split((run / "tensors.safetensors").read_bytes())
    (name,) = (name for name in header if name.startswith("values"))
    sizes = {"C64": 8, "I32": 4, "U16": 2}
    start, stop = header[name]["data_offsets"]
    header[name] |= {"dtype": dtype, "shape": [(stop - start) // sizes.get(dtype, 1)]}
    _write(run, mutations.joined(header, content))
    with pytest.raises(FormatError):
        relprop.load(run)


def test_an_output_may_be_complex(tmp_path: Path) -> None:
    x = torch.randn(2, 4)
    R = relprop.attribute(lambda x: torch.view_as_complex(x.reshape(2, 2, 2)), x, lambda y: y.real.sum(1))
    R.save(tmp_path / "run")
    loaded = relprop.load(tmp_path / "run")
    assert torch.equal(loaded.output, R.output)
    use(loaded, tmp_path)


def test_tensors_do_not_share_their_memory(run: Path) -> None:
    """Who keeps one tensor of a result does not keep the file."""
    loaded = relprop.load(run)
    for each in (loaded.values, loaded.score, loaded.output, loaded.inputs):
        assert each.untyped_storage().nbytes() == each.numel() * each.element_size()
        each.add_(1)  # and may write to it


def _write(run: Path, tensors: bytes) -> None:
    """Replaces the tensors, with the hash that belongs to them."""
    (run / "tensors.safetensors").write_bytes(tensors)
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["tensors_sha256"] = hashlib.sha256(tensors).hexdigest()
    (run / "manifest.json").write_text(json.dumps(manifest))

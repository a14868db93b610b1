"""Sources without a length, and several runs on one folder."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

import relprop
from relprop.errors import InputError

pytest.importorskip("zarr")

from killed_runs import network, samples, shards
from relprop import data
from relprop.data import leases, processing, stream_units

X = samples()


def explain(source: Any, folder: Path, **settings: Any) -> data.DatasetRun:
    settings = {"batch_size": 4, "unit": 8, "progress": False, "model": network(), **settings}
    return relprop.explain_dataset(source, folder=folder, **settings)


def rows(count: int, fail: int | None = None) -> Iterator[Tensor]:
    for n in range(count):
        if n == fail:
            raise OSError("the line is dead")
        yield X[n]


def content(folder: Path) -> dict[str, bytes]:
    return {name: held for name, held in shards(folder).items() if "/c/" in name}


def test_an_iterable_has_the_bytes_of_a_tensor(tmp_path: Path) -> None:
    run = explain(rows(22), tmp_path / "maps")
    whole = explain(X[:22], tmp_path / "whole")
    assert run.keys() == whole.keys() and len(run) == 22 and run.status()["remaining"] == 0
    assert shards(run.folder) == shards(whole.folder)
    assert not (run.folder / "leases").exists()


def test_it_goes_on_where_it_stopped(tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(InputError, match=r"fails after sample 18: OSError: the line is dead. What is done stays"):
        explain(rows(22, fail=19), tmp_path / "maps", said=said.append)
    assert relprop.open_run(tmp_path / "maps").status()["done"] == 16
    assert "16 done, 0 bad" in said[-1] and said[-1].data["left"] is None  # type: ignore[attr-defined]
    before = (tmp_path / "maps" / "units" / "000000.json").stat().st_mtime_ns
    explain(rows(22), tmp_path / "maps")
    assert (tmp_path / "maps" / "units" / "000000.json").stat().st_mtime_ns == before
    assert content(tmp_path / "maps") == content(explain(X[:22], tmp_path / "whole").folder)
    grown = explain(rows(30), tmp_path / "maps")
    assert [tuple(record["rows"]) for record in grown.store.records()] == [(0, 8), (8, 16), (16, 22), (24, 32)]
    assert grown.keys() == [str(n) for n in range(30)]
    with pytest.raises(InputError, match=r"has 20 samples, and the run .* 30: the source changed"):
        explain(rows(20), tmp_path / "maps")


def test_a_unit_that_was_begun_is_done_again(tmp_path: Path) -> None:
    run = explain(rows(22), tmp_path / "maps")
    run.store.record_path(1).unlink()
    assert explain(rows(22), tmp_path / "maps").status()["done"] == 22
    assert content(run.folder) == content(explain(X[:22], tmp_path / "whole").folder)


def test_keys_are_compared_on_the_way(tmp_path: Path) -> None:
    def named(names: str) -> Iterator[dict[str, Any]]:
        for n, name in enumerate(names):
            yield {"__key__": name, "x": X[n], "label": n % 3}

    run = explain(named("abcdefghij"), tmp_path / "maps", target="label")
    assert run.keys() == list("abcdefghij") and run.table["target"].tolist() == [n % 3 for n in range(10)]
    with pytest.raises(InputError, match=r"sample 3 of the source is 'z', and that of the run .* is 'd'"):
        explain(named("abczefghij"), tmp_path / "maps", target="label")
    with pytest.raises(InputError, match="stand for several samples: 'a'"):
        explain(named("abca"), tmp_path / "twice", target="label")
    assert explain(named("ab"), tmp_path / "numbers", key=lambda n: f"no {n}").keys() == ["a", "b"]
    assert explain(rows(2), tmp_path / "named", key=lambda n: f"no {n}").keys() == ["no 0", "no 1"]


class Lines(IterableDataset):
    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        yield from ((X[n], n % 3) for n in range(11))


@pytest.mark.parametrize("source", [Lines(), DataLoader(Lines(), batch_size=3)])
def test_iterable_data_sets_and_their_loaders(tmp_path: Path, source: Any) -> None:
    run = explain(source, tmp_path / "maps", target="label", limit=9)
    right = explain(X[:9], tmp_path / "whole", target=[n % 3 for n in range(9)])
    assert run.table["target"].tolist() == right.table["target"].tolist()
    assert content(run.folder) == content(right.folder)


@pytest.mark.parametrize(
    ("source", "settings", "said"),
    [
        (lambda: iter(()), {}, "the source is empty"),
        (lambda: rows(3), {"processes": 2}, "by one process"),
        (lambda: rows(3), {"part": "1/2"}, "by one process"),
        (lambda: rows(3), {"target": [0, 1, 2]}, "has no length: name a column"),
        (lambda: rows(3), {"key": ["a"]}, "key= is then a function"),
        (lambda: rows(3), {"key": "name"}, "has no column 'name'"),
    ],
)
def test_iterables_that_do_not_fit(tmp_path: Path, source: Any, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        explain(source(), tmp_path / "maps", **settings)
    assert not list(tmp_path.iterdir())


def test_a_bad_sample_of_an_iterable_is_put_aside(tmp_path: Path) -> None:
    def broken() -> Iterator[Any]:
        yield from (X[0], "text", X[1], X[2] * float("nan"))

    assert set(explain(broken(), tmp_path / "maps").quarantined) == {"1", "3"}


# ------------------------------------------------------------------------------------------------ several runs


def test_two_runs_on_one_folder_share_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []
    real = processing.do_unit

    def counted(store: Any, job: Any, unit: Any, *rest: Any) -> Any:
        done.append(unit.number)
        return real(store, job, unit, *rest)

    monkeypatch.setattr(processing, "do_unit", counted)
    explain(X[:1], tmp_path / "first", batch_size=1, unit=1)  # what is imported later is imported here
    both = [
        threading.Thread(target=explain, args=(X, tmp_path / "maps"), kwargs={"batch_size": 1, "unit": 2})
        for _ in range(2)
    ]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert sorted(done) == [0, *range(30)]
    assert shards(tmp_path / "maps") == shards(explain(X, tmp_path / "whole", batch_size=1, unit=2).folder)
    assert not (tmp_path / "maps" / "leases").exists()


def test_a_lease_of_a_process_that_is_gone_does_not_count(tmp_path: Path) -> None:
    with leases.Leases(tmp_path) as mine, leases.Leases(tmp_path) as other:
        assert mine.take("000001") and not other.take("000001")
        mine.release("000001")
        assert other.take("000001")
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (tmp_path / "leases").mkdir()
    path = tmp_path / "leases" / "000002"
    path.write_text(json.dumps({"host": socket.gethostname(), "pid": gone.pid, "began": "1"}))
    with leases.Leases(tmp_path) as mine:
        assert mine.take("000002")
        mine.held.discard("000002")  # as if another process had it
        path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "began": "1"}))
        assert not mine.take("000002")
        os.utime(path, (0, 0))
        assert mine.take("000002")


def test_a_second_run_over_an_iterable_is_refused(tmp_path: Path) -> None:
    run = explain(rows(8), tmp_path / "maps")
    with leases.Leases(run.folder) as other:
        assert other.take(stream_units._ALL)
        with pytest.raises(InputError, match="another process writes"):
            explain(rows(22), tmp_path / "maps")
    assert len(explain(rows(22), tmp_path / "maps").keys()) == 22

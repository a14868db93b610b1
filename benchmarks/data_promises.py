"""What a run promises: nothing is lost by kills, texts are padded little, and planted artefacts are found."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import relprop
from benchmarks.data_figures import Figure

TESTS = Path(__file__).parent.parent / "tests"


def kills(folder: Path, count: int) -> Iterator[Figure]:
    """Kills at random moments, in loops that end with an error if a row is lost, done twice, or has other bytes."""
    for processes in (1, 2):
        command = [
            sys.executable,
            str(TESTS / "killed_runs.py"),
            str(folder / str(processes)),
            str(count),
            str(processes),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        print(done.stdout.strip().rpartition("\n")[2] or done.stderr[-1000:])
        what = f"{count} kills -9 or more, {processes} processes: loops with a row lost or twice, or other bytes"
        yield Figure(what, float(done.returncode != 0), "==", 0)


def damage(folder: Path) -> Iterator[Figure]:
    """Shards without a record: cut, emptied, and filled with something else."""
    from_tests()
    from killed_runs import network, samples, shards

    settings: dict[str, Any] = {"batch_size": 4, "unit": 8, "progress": False}
    run = relprop.explain_dataset(samples(), network(), folder / "maps", **settings)
    before, wrong = shards(run.folder), 0
    for content in (b"", b"something else", before["maps.zarr/maps/c/1/0/0"][:-9]):
        run.store.forget(1)
        for path in (run.folder / "maps.zarr").rglob("*"):
            if path.is_file() and "/c/1" in path.as_posix():
                path.write_bytes(content)
        relprop.explain_dataset(samples(), network(), run.folder, **settings)
        wrong += shards(run.folder) != before
    yield Figure("units with damaged shards and no record that are not done again", float(wrong), "==", 0)


def texts(folder: Path) -> Iterator[Figure]:
    """Cells for each token, and the difference from the order as given."""
    what = "cells per token of 512 texts of 2 to 60 words, batches of 16, units of 128"
    other = "relevance of texts by length against the order as given, over the largest of the text"
    from_tests()
    try:
        import text_models as tiny

        words = tiny.words()
    except ModuleNotFoundError as error:
        for name, bound in ((what, 1.15), (other, 1e-5)):
            yield Figure(name, None, "<=", bound, digits=2 if bound > 1 else -1, why=f"{error.name} is not installed")
        return
    model = tiny.build("bert", words, id2label={0: "grain", 1: "crude", 2: "ship"}, label2id={}).float()
    chance = np.random.default_rng(0)
    some = [" ".join(chance.choice(tiny.WORDS, min(2 + int(chance.exponential(12)), 60))) for _ in range(512)]
    cells = []
    watched = model.register_forward_pre_hook(
        lambda module, given, named: cells.append(named["input_ids"].numel()), with_kwargs=True
    )
    settings: dict[str, Any] = {"batch_size": 16, "unit": 128, "number_format": "float32", "progress": False}
    run = relprop.explain_dataset(some, model, folder / "maps", tokenizer=words, **settings)
    watched.remove()
    lengths = [len(run[key].map) for key in run.keys()]  # noqa: SIM118
    yield Figure(what, (sum(cells) - cells[0]) / sum(lengths), "<=", 1.15, digits=3)  # the first pass looks at one text
    given = relprop.explain_text(model, words, some, batch_size=16)
    differ = [
        np.abs(run[str(n)].map - one.relevance.numpy()).max() / float(one.relevance.abs().max())
        for n, one in enumerate(given)
    ]
    yield Figure(other, max(differ), "<=", 1e-5, digits=-1)


SEEDS = 20
"""Planted sets that are drawn of each kind."""


def planted(folder: Path) -> Iterator[Figure]:
    """A mark on 5 % of one of ten classes, on half of it, and on none: where that class ranks, and whether it stands out."""
    from_tests()
    from sklearn.metrics import adjusted_rand_score

    from test_spray import MARKED

    marked = [strategies(folder, 0.05, seed) for seed in range(SEEDS)]
    ranks = [[one.target for one in found].index(MARKED) + 1 for found, _ in marked]
    yield Figure(f"{SEEDS} planted sets, 5 % of a class marked: its worst rank among 10", max(ranks), "==", 1)
    alone = sum([one.target for one in found.standing_out] == [MARKED] for found, _ in marked)
    yield Figure("of these, sets where it alone stands out", alone, "==", SEEDS)
    f1 = min(best_f1(found[rank - 1], inside) for (found, inside), rank in zip(marked, ranks, strict=True))
    yield Figure("the same: least F1 of its best cluster", f1, ">=", 0.95, digits=3)
    found, inside = strategies(folder, 0.5, 0)
    mine = next(one for one in found if one.target == MARKED)
    ari = adjusted_rand_score([bool(inside[int(key)]) for key in mine.keys], mine.clusters)
    yield Figure("half marked: ARI", ari, ">=", 0.9, digits=3)
    plain = [strategies(folder, 0.0, seed)[0] for seed in range(SEEDS)]
    ranks = sorted([one.target for one in found].index(MARKED) + 1 for found in plain)
    print(f"ranks of a class without a mark in {SEEDS} sets: {', '.join(map(str, ranks))}")
    what = f"{SEEDS} sets without a mark: those where any class stands out"
    yield Figure(what, sum(bool(found.standing_out) for found in plain), "==", 0)
    largest = max(one.silhouette for found in plain for one in found)
    yield Figure("unmarked: largest silhouette of a class", largest, "<=", 0.1, digits=3)


def strategies(folder: Path, share: float, seed: int) -> tuple[Any, Any]:
    """SpRAy of a planted set, and which of its samples have the mark."""
    from test_spray import EACH, Patterns, samples

    x, marked = samples(share, seed=seed)
    target = [n // EACH for n in range(len(x))]
    settings: dict[str, Any] = {"composite": "epsilon", "batch_size": 500, "progress": False}
    run = relprop.explain_dataset(x, Patterns(share > 0).eval(), folder / f"{share} {seed}", target=target, **settings)
    return run.spray(), marked


def best_f1(found: Any, marked: Any) -> float:
    """The F1 of the cluster that fits the mark best."""
    inside = np.array([bool(marked[int(key)]) for key in found.keys])
    return max(
        2 * (inside & (found.clusters == c)).sum() / (inside.sum() + (found.clusters == c).sum())
        for c in range(len(found.sizes))
    )


def from_tests() -> None:
    """Lets modules of the tests be imported."""
    if str(TESTS) not in sys.path:
        sys.path.insert(0, str(TESTS))
    torch.manual_seed(0)

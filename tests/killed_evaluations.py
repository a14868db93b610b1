"""Kills evaluations at random moments until each is done, and compares what comes out with one that nobody disturbed.

    python tests/killed_evaluations.py FOLDER KILLS

Each process is ended by a timer of its CPU time, without any cleaning up. What the model was given is written down outside
of the evaluation's folder, so that one can count what was done twice.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import sys
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor, nn

import relprop
from relprop.evaluation import Flipping, NoisyLinear, SampleMean

BATCH, SAMPLES, METHODS = 4, 6, ["auto", "zero", "epsilon_plus"]


class Watched(nn.Module):
    """Writes down each row that it scores, and how many it explains."""

    def __init__(self, book: Path) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)
        self.layers = nn.Sequential(*layers)
        self._book = book

    def forward(self, x: Tensor) -> Tensor:
        found = self.layers(x)
        explained = torch.is_grad_enabled()
        lines = ["map"] * len(x) if explained else [hashlib.sha256(row.numpy().tobytes()).hexdigest() for row in x]
        file = os.open(self._book, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(file, "".join(f"{line}\n" for line in lines).encode())
        os.close(file)
        return found


def samples() -> Tensor:
    return torch.rand(SAMPLES, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def evaluate(book: Path, folder: Path | None) -> relprop.evaluation.Evaluation:
    return relprop.evaluate(
        Watched(book).eval(), samples(), 0, METHODS, metrics=[Flipping(steps=5), "infidelity"], units=("patches", 3),
        replace=[SampleMean(), NoisyLinear()], folder=folder, batch_size=BATCH, free=["random"],
    )  # fmt: skip


def once(place: Path, seconds: float) -> int:
    """Starts an evaluation in a process of its own; returns the signal that ended it, or 0."""
    child = os.fork()
    if child == 0:
        signal.setitimer(signal.ITIMER_PROF, seconds)
        evaluate(place / "book", place / "work")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def written(book: Path) -> Counter[str]:
    return Counter(book.read_text().split())


def main(folder: Path, wanted: int) -> None:
    torch.set_num_threads(1)
    expected = evaluate(folder / "calm", None)
    calm = written(folder / "calm")
    maps, plain = calm.pop("map"), list(calm)[:SAMPLES]
    assert len(calm) > 200 and maps == SAMPLES * len(METHODS)
    chance, kills, runs, most = random.Random(wanted), 0, 0, 0
    while kills < wanted:
        place, during = folder / f"run {runs}", 0
        place.mkdir()
        while once(place, chance.uniform(0.05, 0.4)):
            during += 1
        done = written(place / "book")
        found = evaluate(place / "after", place / "work")
        for a, b in zip(expected.columns, found.columns, strict=True):
            assert torch.equal(a.values, b.values), a.name
        # Each start runs the samples as they are, and asks what "auto" is on one of them.
        assert set(written(place / "after")) == {"map", *plain} and written(place / "after")["map"] == 1
        again = done.pop("map") - maps - (during + 1)
        assert set(done) == set(calm)
        again += sum(times - 1 for one, times in done.items() if one not in plain)
        assert again <= BATCH * during, (again, during)
        kills, runs, most = kills + during, runs + 1, max(most, again)
    print(
        f"{kills} kills in {runs} runs of {sum(calm.values()) + maps} rows; at most {most} rows were done again in a run"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))

"""Every name of `relprop`, and a small call of each that runs a model or reads what ran: for leaks and faults."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import relprop
from helpers import Mark, propagated

Entry = Callable[[nn.Module, Path], Any]


class Marked(nn.Module):
    """A small network for pictures that marks a hidden tensor and the node that made it."""

    def __init__(self, seen: list[Any] | None = None) -> None:
        super().__init__()
        self.seen: list[Any] = [] if seen is None else seen
        self.conv, self.norm, self.deep = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.deep(self.norm(self.conv(x)).relu()).relu_()
        self.seen.append(weakref.ref(x))
        if x.grad_fn is not None:
            mark = x.grad_fn.metadata["mark of the tests"] = Mark()
            self.seen.append(weakref.ref(mark))
        return self.head(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))


def marked(seen: list[Any] | None = None) -> Marked:
    torch.manual_seed(0)
    return Marked(seen).eval()


def pictures(count: int = 2) -> Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def dataset(count: int = 6) -> list[tuple[Tensor, int]]:
    return [(x, n % 3) for n, x in enumerate(pictures(count))]


def indexed(model: nn.Module) -> Any:
    return relprop.index(model, dataset(), layers=["conv", "deep"], keep=2, vectors=True)


def indexed_and_loaded(model: nn.Module, folder: Path) -> Any:
    indexed(model).save(folder / "index")
    return relprop.load_index(folder / "index", model, dataset())[("deep", 0)].references()


def explained(model: nn.Module, folder: Path) -> Any:
    import shutil

    shutil.rmtree(folder / "run", ignore_errors=True)
    options = {"progress": False, "batch_size": 2, "unit": 4}
    return relprop.explain_dataset(pictures(5), model, folder / "run", **options)


def explained_and_opened(model: nn.Module, folder: Path) -> Any:
    explained(model, folder)
    return relprop.open_run(folder / "run")["3"]


def saved_and_loaded(model: nn.Module, folder: Path) -> Any:
    relprop.attribute(model, pictures(), 1, ledger=True, layers="*").save(folder / "result")
    return relprop.load(folder / "result")


def reported(model: nn.Module, folder: Path) -> Any:
    return relprop.report([relprop.attribute(model, pictures(1), 1, ledger=True)], folder / "report.html")


def commanded(model: nn.Module, folder: Path) -> Any:
    """`relprop explain`, in this process; the model is one that was made before."""
    from PIL import Image
    from typer.testing import CliRunner

    from relprop.cli.app import app

    Image.new("RGB", (8, 8), (20, 100, 200)).save(folder / "picture.png")
    HELD["model"] = model
    try:
        options = ["--model", "public_entries:held", "--size", "8", "--out", str(folder / "out")]
        done = CliRunner().invoke(app, ["explain", str(folder / "picture.png"), *options])
    finally:
        HELD.clear()
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception.with_traceback(None)
    if done.exit_code == 130:
        raise KeyboardInterrupt
    assert done.exit_code == 0, done.output
    return done.output


HELD: dict[str, nn.Module] = {}


def held() -> nn.Module:
    return HELD["model"]


def graphed(model: nn.Module, folder: Path) -> Any:
    return relprop.graph(model, pictures(1), 1, nodes=["conv", "deep"], keep=4)


def spliced(model: nn.Module, folder: Path) -> Any:
    splice = relprop.Splice("deep", encode=lambda h: (h @ torch.ones(4, 4)).relu(), decode=lambda z: z * 0.5)
    return relprop.attribute(model, pictures(), 1, splices=splice, layers="deep*")


def evaluated(model: nn.Module, folder: Path) -> Any:
    metrics = ("flipping", "sensitivity_n", "randomisation")
    return relprop.evaluate(model, pictures(2), [0, 1], ["zero"], metrics=metrics, units=("patches", 4), free=[])


def searched(model: nn.Module, folder: Path) -> Any:
    space = [relprop.composites.epsilon(0.1), relprop.composites.gamma()]
    return relprop.search(model, pictures(10), 1, space=space, units=("patches", 4), replace=[0.0])


ENTRIES: dict[str, Entry] = {
    "attribute": lambda m, f: relprop.attribute(m, pictures(), [0, 1], ledger=True, layers="*", weights=True),
    "attribute_each": lambda m, f: relprop.attribute_each(m, pictures(), [0, 1], targets_at_once=2),
    "compare": lambda m, f: relprop.compare(m, pictures(1), [0, 1], ["zero", "gamma_flat"]),
    "compile": lambda m, f: relprop.compile(m, backend="eager")(pictures(), 1),
    "propagate": lambda model, folder: propagated(model, pictures()),
    "survey": lambda m, f: relprop.survey(m, pictures()),
    "captum": lambda m, f: relprop.captum.LayerLRP(m, [m.conv, m.deep]).attribute(pictures(), 1),
    "LRP": lambda m, f: relprop.LRP(m).attribute(pictures(), 1),
    "LayerLRP": lambda m, f: relprop.LayerLRP(m, m.deep).attribute(pictures(), 1),
    "units": lambda m, f: relprop.attribute(m, pictures(), 1, through=relprop.units("deep")[1]),
    "Splice": spliced,
    "graph": graphed,
    "similarity": lambda m, f: relprop.similarity(m, pictures(1), pictures(2)[1:]),
    "patch": lambda m, f: relprop.patch(m, pictures(), pictures() * 0.5, 1, nodes=[relprop.units("conv")[1]]),
    "index": lambda m, f: indexed(m)[("deep", 0)].references(),
    "load_index": indexed_and_loaded,
    "atlas": lambda m, f: relprop.atlas(indexed(m), pictures(1), 1, layer="conv", most=3, grid=2),
    "prototypes": lambda m, f: relprop.prototypes(indexed(m), "deep", count=1, correct=False),
    "importance": lambda m, f: relprop.importance(m, dataset()),
    "evaluate": evaluated,
    "search": searched,
    "sanity": lambda m, f: relprop.sanity(m, pictures(3), 1, ["zero"], samples=3),
    "explain_dataset": explained,
    "open_run": explained_and_opened,
    "load": saved_and_loaded,
    "report": reported,
    "command": commanded,
}
"""One call of each entry on the network above."""

KEEPS_THE_MODEL = {"atlas", "prototypes"}
"""Entries whose results hold their index, and that its model: they draw what their units stand for."""

ELSEWHERE = {"explain_text", "explain_generation", "compare_text"}
"""Entries for models of texts: the same tests in `test_leaks.py` and `test_faults.py`."""

NO_MODEL = {"operation", "path", "where", "read_image", "read_volume", "register", "widget"}
"""Functions that explain nothing themselves: they name places, read files, note an operation, or show a page."""

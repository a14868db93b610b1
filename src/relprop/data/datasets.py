"""`relprop.explain_dataset`: each sample of a source explained once, whatever interrupts it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterable
from os import PathLike
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from relprop.composites import Composite
from relprop.data.explaining import Job, specs_of
from relprop.data.keep import FORMATS, Keep, spelled
from relprop.data.processing import allowed_of, part_of, process
from relprop.data.run import Run
from relprop.data.sources import Source, source_of
from relprop.data.store import Spec, Store, create
from relprop.errors import InputError
from relprop.loading import models
from relprop.loading.network import Loaded, Pictures, picture_reading
from relprop.rendering.visible import quoted
from relprop.results.files.fingerprint import weights_sha256
from relprop.results.identity import Identity
from relprop.signatures import public
from relprop.version import versions

_SECONDS, _BYTES, _MOST = 30.0, 128 * 2**20, 4096
"""The most that a unit takes: a unit that is longer than the time between two failures would never be done."""


@public("relprop.explain_dataset")
def explain_dataset(
    source: Any,
    model: Any,
    folder: str | PathLike[str],
    *,
    target: Any = None,
    composite: Composite | str = "auto",
    keep: Any = None,
    number_format: str = "float16",
    batch_size: int = 32,
    unit: int | None = None,
    loaders: int = 1,
    part: str | tuple[int, int] | None = None,
    units: Iterable[int] | None = None,
    limit: int | None = None,
    max_bad: float | int = 0.01,
    retry_bad: bool = False,
    key: Any = None,
    transform: Any = None,
    progress: bool = True,
    said: Callable[[str], None] | None = None,
) -> Run:
    """Explains each sample of a source once, and keeps the maps in a folder. The same call again continues where it stopped.

    Samples are stored in units, each written whole; its record is written last. A process that is killed loses at most
    the unit it was at. Several processes may write one folder. Needs zarr: `pip install 'relprop[data]'`.

    Args:
        source: a folder of pictures, read recursively; a list of paths; a `.npy` file; a tensor or array with the samples
            first; a data set with a length, whose items are inputs or (input, label); or a `DataLoader` that does not
            shuffle, of which the data set and `collate_fn` are used.
        model: a module, or a network by name as the command takes it, such as "efficientnet_lite0" or
            "module.path:factory".
        folder: where the run is kept.
        target: None for the predicted class; "label" for the labels of the source; a list or 1-D tensor with one per
            sample; else any target that `attribute` takes for all samples.
        composite: the rules, or the name of a composite.
        keep: what is stored. `{"input": ...}` is "sum" over channels (the default), "full", "sum:28" for sums of 28 x 28
            blocks, or "none". Globs of layers have "channels" (summed over space), "full", "top:K" (the largest, with
            their indices), or a function of the layer's relevance (N, ...).
        number_format: "float16" or "int8", each with a float32 scale per map, or "float32".
        batch_size: samples per forward pass. Batches do not cross units.
        unit: samples per unit; None chooses so that a unit takes at most 30 seconds and 128 MiB.
        loaders: threads that read samples ahead.
        part: (i, n) or "i/n" for every n-th unit from the i-th, counted from 1: for the jobs of a job array.
        units: the numbers of the units to do; None does all. See `relprop.data.pending`.
        limit: only so many of the first samples.
        max_bad: samples that may be quarantined before the run stops: a share, or a number; at least 10 where it is a share.
        retry_bad: whether to do again the units that have quarantined samples.
        key: the keys of the samples as a list, or a function from their number; None takes relative paths or row numbers.
        transform: a function from a Pillow image to an input (C, H, W), in place of the network's own preprocessing.
        progress: whether to say on stderr what is done.
        said: is called with each line of progress, in place of stderr.

    Returns:
        The run, as `open_run` gives it.

    Raises:
        InputError: an argument is not valid, the folder holds another run, the source changed, the disk is too small, or
            more samples than `max_bad` were quarantined.
        RelpropError: as in `attribute`, where no sample is at fault.
        ModuleNotFoundError: zarr is not installed.
    """
    check(batch_size=batch_size, unit=unit, loaders=loaders, limit=limit)
    if number_format not in FORMATS:
        raise InputError(
            f"number_format is {', '.join(FORMATS)}; got {number_format!r}. float16 and int8 have a scale for each map."
        )
    mine = part_of(part)
    chosen = None if units is None else frozenset(units)
    allowed_of(max_bad, 0)
    say = said or ((lambda line: print(line, file=sys.stderr, flush=True)) if progress else _nothing)
    loaded, name = _loaded(model)
    found = source_of(source, loaded, key, transform)
    if limit is not None:
        found = Source(found.kind, found.keys[:limit], found.read)
    if isinstance(target, Tensor):
        target = target.tolist()
    if isinstance(target, list) and len(target) != len(found):
        raise InputError(f"target= has {len(target)} targets, and the source {len(found)} samples.")
    kept = Keep.of({"input": "sum"} if keep is None else keep)
    job = Job(loaded.model, found, target, composite, kept, number_format, batch_size, loaders)
    prints = {
        "model": name, "weights_sha256": weights_sha256(loaded.model), "composite": _composite(composite),
        "target": _target(target), "keep": kept.described(), "number_format": number_format,
        "batch_size": batch_size, "transform": None if transform is None else spelled(transform),
        "dtype": _dtype(loaded.model), "device": _device_kind(loaded.model), "source": found.kind,
    }  # fmt: skip
    store = _opened(Path(folder), job, prints, unit, say)
    process(store, job, lambda number: mine(number) and (chosen is None or number in chosen), max_bad, retry_bad, say)
    return Run(folder)


def pending(folder: str | PathLike[str]) -> list[int]:
    """The numbers of the units that are not done.

    Raises:
        FormatError: the folder is not a run.
    """
    store = Store(Path(folder))
    done = store.done()
    return [unit.number for unit in store.units() if unit.number not in done]


def work(folder: str | PathLike[str], units: Iterable[int], source: Any, model: Any, **settings: Any) -> None:
    """Does these units of a run: what a task of any engine for many machines calls.

    Args:
        folder: the run's folder, on a file system that all machines see.
        units: their numbers, from `pending`.
        source: as in `explain_dataset`, like all further settings. They must be those of the run.
        model: as in `explain_dataset`.
        settings: the other arguments of `explain_dataset`.

    Raises:
        RelpropError: as in `explain_dataset`.
    """
    explain_dataset(source, model, folder, units=units, **{"progress": False, **settings})


def check(**given: Any) -> None:
    """Refuses what is not a positive int; None stands for a default.

    Raises:
        InputError: one is none.
    """
    for name, value in given.items():
        if value is None and name in ("unit", "limit"):
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InputError(f"{name} must be a positive int; got {value!r}.")


def _opened(folder: Path, job: Job, prints: dict[str, Any], unit: int | None, say: Callable[[str], None]) -> Store:
    """The store of the run: made if there is none, else compared with what is asked for."""
    if not (folder / "run.json").is_file():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"{quoted(folder)} exists and is not a run: choose another folder, or empty it first.")
        specs, shape, seconds = specs_of(job)
        size = unit or _unit_size(specs, seconds, job.batch)
        _check_room(folder, specs, len(job.source), say)
        about = {
            "fingerprint": prints, "lengths": [len(job.source)], "keys_sha256": job.source.digest(len(job.source)),
            "unit": size, "input_shape": shape, "number_format": job.form, "versions": versions(),
        }  # fmt: skip
        create(folder, about, specs)
    store = Store(folder)
    for name, value in prints.items():
        before = store.about["fingerprint"].get(name)
        if before != value:
            raise InputError(f"{quoted(folder)} holds another run, whose {name} is {before!r}; this one has {value!r}.")
    if unit is not None and unit != store.size:
        raise InputError(f"{quoted(folder)} holds a run with {store.size} samples per unit; this one has {unit}.")
    _same_source(store, job.source)
    return store


def _same_source(store: Store, source: Source) -> None:
    """Refuses a source whose samples are not those of the run, in their order. More of them at its end are added."""
    known = sum(store.about["lengths"])
    if len(source) < known:
        raise InputError(
            f"the source has {len(source)} samples, and the run in {quoted(store.folder)} {known}: the source changed."
        )
    if source.digest(known) != store.about["keys_sha256"]:
        raise InputError(
            f"the first {known} keys of the source are not those of the run in {quoted(store.folder)}: samples were renamed, "
            "removed, or put between. Explain it into another folder."
        )
    if len(source) > known:
        store.about["keys_sha256"] = source.digest(len(source))
        store.grow(len(source))


def _unit_size(specs: list[Spec], seconds: float, batch: int) -> int:
    """Samples per unit: whole batches, within the bounds on time and bytes."""
    most = min(_BYTES // max(sum(spec.bytes for spec in specs), 1), int(_SECONDS / max(seconds, 1e-6)), _MOST)
    return max(most // batch, 1) * batch


def _check_room(folder: Path, specs: list[Spec], count: int, say: Callable[[str], None]) -> None:
    """Says how many bytes the run takes before compression, and refuses it if they are more than there are."""
    each = sum(spec.bytes for spec in specs)
    place = folder if folder.exists() else next(p for p in folder.absolute().parents if p.exists())
    free = shutil.disk_usage(place).free
    say(f"{each:,} bytes per sample before compression, {each * count:,} in all; {free:,} are free.")
    if each * count > free:
        raise InputError(
            f"the run takes up to {each * count:,} bytes, and {quoted(place)} has {free:,}: keep less, such as "
            "keep={'input': 'sum:28'}."
        )


def _loaded(model: Any) -> tuple[Loaded, str]:
    if isinstance(model, str):
        found = models.load(model)
        if found.tokenizer is not None:
            raise InputError(f"{model} reads text; runs over data sets are for networks of one tensor.")
        return found, model
    if not isinstance(model, nn.Module):
        raise InputError(f"model is a torch.nn.Module, or a network by name; got {type(model).__name__}.")
    name = Identity.of(model).name
    return Loaded(name, model, None, *picture_reading(model, Pictures())), name


def _composite(composite: Any) -> Any:
    if isinstance(composite, str):
        return composite
    if not isinstance(composite, Composite):
        raise InputError(f"composite is a name or a Composite; got {composite!r}.")
    return [composite.name, *(f"{place}: {spelled(rule)}" for place, rule in composite.entries)]


def _target(target: Any) -> Any:
    return target if target is None or isinstance(target, (str, int)) else spelled(target)


def _dtype(model: nn.Module) -> str:
    first = next(iter(model.parameters()), None)
    return "none" if first is None else str(first.dtype).removeprefix("torch.")


def _device_kind(model: nn.Module) -> str:
    first = next(iter(model.parameters()), None)
    return "cpu" if first is None else first.device.type


def _nothing(line: str) -> None:
    return None

"""`relprop.explain_dataset`: each sample of a source explained once, whatever interrupts it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from os import PathLike
from typing import Any

from torch.utils.data import DataLoader

from relprop.composites import Composite
from relprop.data import parallel
from relprop.data.batch_sizes import AUTO, batch_size_of, suitable_batch
from relprop.data.dataset_run import DatasetRun
from relprop.data.explaining import specs_of
from relprop.data.preparing import Given, check, opened, prepared
from relprop.data.processing import PendingUnits, allowed_of, part_of, process
from relprop.data.run_addresses import place_of
from relprop.data.run_folders import remove_run
from relprop.data.sample_sources import Source
from relprop.data.sample_streams import SampleStream, is_stream
from relprop.data.sharded_models import check_alone, is_dispatched, is_sharded, process_sharded
from relprop.data.store import Store
from relprop.data.stream_units import process_stream
from relprop.errors import InputError
from relprop.signatures import public


@public("relprop.explain_dataset")
def explain_dataset(
    source: Any,
    model: Any,
    folder: str | PathLike[str],
    *,
    target: Any = None,
    targets: Any = None,
    composite: Composite | str = "auto",
    keep: Any = None,
    number_format: str = "float16",
    batch_size: int | str = 32,
    unit: int | None = None,
    loaders: int = 1,
    processes: int = 1,
    engine: str | None = None,
    gpus: float | None = None,
    part: str | tuple[int, int] | None = None,
    units: Iterable[int] | None = None,
    limit: int | None = None,
    max_bad: float | int = 0.01,
    retry_bad: bool = False,
    fresh: bool = False,
    key: Any = None,
    column: str | list[str] | None = None,
    transform: Any = None,
    tokenizer: Any = None,
    max_length: int | None = None,
    decoder_text: str | None = None,
    ledger: bool = False,
    progress: bool = True,
    said: Callable[[str], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> DatasetRun:
    """Explains each sample of a source once, and keeps the maps in a folder. The same call again continues where it stopped.

    Samples are stored in units, each written whole; its record is written last. A process that is killed loses at most
    the unit it was at. Several processes may write one folder. Needs zarr: `pip install 'relprop[data]'`.

    Args:
        source: a folder of pictures, read recursively; a list of paths; a table (`.csv`, `.jsonl`, `.parquet`) with the path
            of a picture or a row of numbers for each sample; tar files in the form of WebDataset; a `.npy` file; a tensor
            or array with the samples first; a data set with a length, whose items are inputs, pictures, (input, label) or
            dicts of columns, as those of Hugging Face; a `DataLoader` that does not shuffle, of which the data set and
            `collate_fn` are used; or any iterable of such items, which is read from the start each time. For a network that reads text: a list of texts, pairs or chats; a table with a column of
            text; a `.txt` file with a text on each line; a folder of such files with a text each; or a data set of texts,
            (text, label) or dicts of columns.
        model: a module, or a network by name as the command takes it, such as "efficientnet_lite0" or
            "module.path:factory".
        folder: where the run is kept: a folder, or an address of an object store that fsspec knows, such as
            "s3://bucket/maps".
        target: None for the predicted class; "label" for the labels of the source, or the
            name of another of its columns; a list or 1-D tensor with one per
            sample; "top:3" for the three largest outputs; else any target that `attribute` takes for all samples, or
            for texts any that `explain_text` takes.
        targets: a list of several targets that are explained for each sample, each in one of these forms but "top:3". The
            arrays then have an axis of targets after that of samples.
        composite: the rules, or the name of a composite.
        keep: what is stored. `{"input": ...}` is "sum" over channels (the default), "full", "sum:28" for sums of 28 x 28
            blocks, or "none". Globs of layers have "channels" (summed over space), "full", "top:K" (the largest, with
            their indices), or a function of the layer's relevance (N, ...).
        number_format: "float16" or "int8", each with a float32 scale per map, or "float32".
        batch_size: samples per forward pass. Batches do not cross units. "auto" takes that of the run that is there, or
            doubles it on the first samples until larger batches are not quicker or do not fit into memory, up to 64.
        unit: samples per unit; None chooses so that a unit takes at most 30 seconds and 128 MiB.
        loaders: threads that read samples ahead.
        processes: how many processes explain, each with its own network. Units are handed out one at a time; a process
            that dies is started again. The network is then a name, or a module that pickles.
        engine: "ray" for as many actors of Ray Data, on all its machines; None for processes on this one.
        gpus: with Ray, the part of a GPU that each actor has, such as 0.5; None takes one for a network on a GPU.
        part: (i, n) or "i/n" for every n-th unit from the i-th, counted from 1: for the jobs of a job array.
        units: the numbers of the units to do; None does all. See `relprop.data.pending`.
        limit: only so many of the first samples.
        max_bad: samples that may be quarantined before the run stops: a share, or a number; at least 10 where it is a share.
        retry_bad: whether to do again the units that have quarantined samples.
        fresh: whether to delete the run in the folder first, and begin anew. Nothing is deleted if anything in the folder
            was not written by a run, or if another process writes it.
        key: the keys of the samples as a list, a function from their number, or the name of a column; None takes relative
            paths, the keys of tar files, or row numbers.
        column: the column of a table or of dicts that holds the input, or a list of those that hold its numbers; None finds
            it by its name.
        transform: a function from a Pillow image to an input (C, H, W), in place of the network's own preprocessing.
        tokenizer: the tokenizer of a module that reads text. A network by name may bring its own.
        max_length: cut texts to this many tokens, which is then the length of their rows; None takes what the network
            reads, if that is not more than 1,024 tokens. Longer texts are quarantined then.
        decoder_text: what an encoder-decoder has written so far, the same for all texts; its next token is explained. None
            gives its decoder the start token alone.
        ledger: whether to keep what absorbed the residual of each sample, by cause.
        progress: whether to say on stderr what is done.
        said: is called with each line of progress, in place of stderr.
        stop: is asked before each unit; the run ends there if it says True, and the same call goes on later.

    Returns:
        The run, as `open_run` gives it.

    Raises:
        InputError: an argument is not valid, the folder holds another run, the source changed, the disk is too small, or
            more samples than `max_bad` were quarantined.
        RelpropError: as in `attribute`, where no sample is at fault.
        ModuleNotFoundError: zarr is not installed.
    """
    place = place_of(folder)
    if isinstance(batch_size, str) and batch_size != AUTO:
        raise InputError(f"batch_size must be a positive int, or 'auto'; got {batch_size!r}.")
    known = batch_size_of(place) if batch_size == AUTO and not fresh else None
    auto = batch_size == AUTO and known is None
    batch: Any = (known or 1) if isinstance(batch_size, str) else batch_size
    numbers = {"loaders": loaders, "limit": limit, "processes": processes, "max_length": max_length}
    check(batch_size=batch, unit=unit, **numbers)
    mine = part_of(part)
    chosen = None if units is None else frozenset(units)
    allowed_of(max_bad, 0)
    if engine not in (None, "ray"):
        raise InputError(f"engine is None or 'ray'; got {engine!r}. For others see relprop.data.work.")
    if gpus is not None and (
        engine is None or isinstance(gpus, bool) or not isinstance(gpus, (int, float)) or not gpus >= 0
    ):
        raise InputError(f"gpus= is the part of a GPU for each actor of engine='ray', such as 0.5; got {gpus!r}.")
    say = said or ((lambda line: print(line, file=sys.stderr, flush=True)) if progress else _nothing)
    spread = processes > 1 or engine is not None
    if spread and place.own:
        raise InputError(
            f"no other process sees {str(folder)!r}: leave out processes= and engine=, or choose a folder or store that all see."
        )
    if spread and is_dispatched(model):
        raise InputError("a model that lies on several devices is one process: leave out processes= and engine=.")
    given = Given(
        source, model, target, composite, keep, number_format, batch, loaders, limit, key, transform, column, targets, ledger,
        tokenizer, max_length, decoder_text,
    )  # fmt: skip
    streamed = is_stream(source.dataset if isinstance(source, DataLoader) else source)
    if streamed and (spread or part is not None or chosen is not None):
        raise InputError(
            "a source without a length is read from the start, by one process: leave out processes=, engine=, part= and "
            "units=, or give it __len__ and __getitem__."
        )
    sent = given.pickled() if spread else b""
    job, prints = prepared(given)
    if auto:
        suitable = suitable_batch(job)
        say(f"batches of {suitable} samples")
        # a run that began at the same time has chosen for all of them
        given = replace(given, batch_size=(None if fresh else batch_size_of(place)) or suitable)
        sent = given.pickled() if spread else b""
        job, prints = prepared(given)
    sharded = is_sharded(job.model)
    if sharded:
        check_alone(processes=processes > 1, engine=engine, batch_size=auto, fresh=fresh, source=streamed)
    if fresh:
        specs_of(job)  # what stops the new run must not cost the old one
        remove_run(place)
    count = len(job.source) if isinstance(job.source, Source) else None

    def pending_of(store: Store) -> PendingUnits:
        wanted = lambda n: mine(n) and (chosen is None or n in chosen)  # noqa: E731
        return PendingUnits(store, count, wanted, max_bad, retry_bad, say, stop)

    if sharded:
        process_sharded(place, job, prints, unit, say, pending_of)
        return DatasetRun(place)
    work = pending_of(opened(place, job, prints, unit, say))
    if isinstance(job.source, SampleStream):
        process_stream(work, job, job.source)
    elif engine == "ray":
        from relprop.data import ray_engine

        ray_engine.process(work, sent, processes, gpus)
    elif spread:
        parallel.process(work, sent, processes)
    else:
        process(work, job)
    return DatasetRun(place)


def pending(folder: str | PathLike[str]) -> list[int]:
    """The numbers of the units that are not done.

    Raises:
        FormatError: the folder is not a run.
    """
    store = Store(folder)
    done = store.done()
    return [unit.number for unit in store.units() if unit.number not in done]


def work(folder: str | PathLike[str], units: Iterable[int], source: Any, model: Any, **settings: Any) -> None:
    """Does these units of a run: what a task of any engine for many machines calls.

    Args:
        folder: the run's folder, on a file system that all machines see, or its address.
        units: their numbers, from `pending`.
        source: as in `explain_dataset`, like all further settings. They must be those of the run.
        model: as in `explain_dataset`.
        settings: the other arguments of `explain_dataset`.

    Raises:
        RelpropError: as in `explain_dataset`.
    """
    explain_dataset(source, model, folder, units=units, **{"progress": False, **settings})


def _nothing(line: str) -> None:
    return None

"""What a run is, before its first batch: the network and its samples, what is kept, and the folder that fits them."""

from __future__ import annotations

import math
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from relprop.composites import Composite
from relprop.data.asked_targets import AskedTargets
from relprop.data.explaining import specs_of
from relprop.data.keep import FORMATS, Keep, spelled
from relprop.data.run_descriptions import RUN
from relprop.data.run_places import RunPlace
from relprop.data.sample_job import LEDGER, SampleJob
from relprop.data.sample_sources import Source, source_of
from relprop.data.shards import Spec
from relprop.data.store import Store, create
from relprop.data.text_job import TextJob, width_of
from relprop.data.text_samples import vocabulary, vocabulary_sha256
from relprop.errors import InputError
from relprop.loading import models
from relprop.loading.network import Loaded, Pictures, no_picture, picture_reading
from relprop.rendering.visible import quoted
from relprop.results.files.fingerprint import weights_sha256
from relprop.results.identity import Identity
from relprop.version import versions

_SECONDS, _BYTES, _MOST = 30.0, 128 * 2**20, 4096
"""The most that a unit takes: a unit that is longer than the time between two failures would never be done."""


@dataclass(frozen=True, eq=False)
class Given:
    """The arguments of `explain_dataset` that decide what is computed. Other processes get them, too."""

    source: Any
    model: Any
    target: Any
    composite: Any
    keep: Any
    number_format: str
    batch_size: int
    loaders: int
    limit: int | None
    key: Any
    transform: Any
    column: Any = None
    targets: Any = None
    ledger: bool = False
    tokenizer: Any = None
    max_length: int | None = None
    decoder_text: str | None = None

    def pickled(self) -> bytes:
        """Itself, for another process.

        Raises:
            InputError: a part of it cannot be sent there.
        """
        for name in ("source", "model", "target", "targets", "composite", "keep", "key", "transform", "tokenizer"):
            try:
                pickle.dumps(getattr(self, name))
            except Exception as error:  # whatever an object raises
                raise InputError(
                    f"{name}= cannot be sent to another process: {error}. With several processes, name the network "
                    "('module.path:factory'), take functions and classes from a module, or use part=."
                ) from error
        return pickle.dumps(self)


def prepared(given: Given) -> tuple[SampleJob, dict[str, Any]]:
    """What is done with each sample, and the fingerprint of the run.

    Raises:
        InputError: an argument is not valid.
    """
    if given.number_format not in FORMATS:
        raise InputError(
            f"number_format is {', '.join(FORMATS)}; got {given.number_format!r}. float16 and int8 have a scale for each "
            "map."
        )
    loaded, name = _loaded(given.model, given.tokenizer)
    found = source_of(
        given.source, loaded, given.key, given.transform, given.column, given.target, given.max_length, given.limit
    )
    asked = AskedTargets.of(given.target, given.targets, len(found) if isinstance(found, Source) else None)
    kept = Keep.of({"input": "sum"} if given.keep is None else given.keep)
    parts = {
        "model": loaded.model, "source": found, "asked": asked, "composite": given.composite, "keep": kept,
        "form": given.number_format, "batch": given.batch_size, "loaders": given.loaders, "ledger": given.ledger,
        "halving": not any(hasattr(p, "to_local") for p in loaded.model.parameters()),
    }  # fmt: skip
    job = SampleJob(**parts) if loaded.tokenizer is None else _text_job(parts, loaded, given)
    prints = {
        "model": name, "weights_sha256": weights_sha256(loaded.model), "composite": _composite(given.composite),
        "target": asked.described(), "keep": kept.described(), "number_format": given.number_format,
        "batch_size": given.batch_size, "transform": None if given.transform is None else spelled(given.transform),
        "dtype": _dtype(loaded.model), "device": _device_kind(loaded.model), "source": found.kind,
    }  # fmt: skip
    if given.column is not None:
        prints["column"] = given.column if isinstance(given.column, str) else list(given.column)
    if given.ledger:
        prints["ledger"] = True
    if given.decoder_text is not None:
        if not isinstance(job, TextJob):
            raise InputError("decoder_text= is for encoder-decoder networks of text.")
        prints["decoder_text"] = given.decoder_text
    if isinstance(job, TextJob):
        prints |= {"vocabulary_sha256": vocabulary_sha256(loaded.tokenizer), "max_length": given.max_length}
    return job, prints


def _text_job(parts: dict[str, Any], loaded: Loaded, given: Given) -> TextJob:
    """What is done with texts.

    Raises:
        InputError: their relevance is to be kept in a form that texts do not have.
    """
    form = parts["keep"].input
    if form not in ("sum", "none"):
        raise InputError(f"keep['input'] of texts is 'sum', a number for each token, or 'none'; got {form!r}.")
    width = width_of(loaded.model, loaded.tokenizer, given.max_length)
    return TextJob(**parts, tokenizer=loaded.tokenizer, width=width, decoder_text=given.decoder_text)


def check(**given: Any) -> None:
    """Refuses what is no positive int; None stands for a default.

    Raises:
        InputError: one is none.
    """
    for name, value in given.items():
        if value is None and name in ("unit", "limit", "max_length"):
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InputError(f"{name} must be a positive int; got {value!r}.")


def opened(
    place: RunPlace, job: SampleJob, prints: dict[str, Any], unit: int | None, say: Callable[[str], None],
    found: tuple[list[Spec], list[int], float] | None = None,
) -> Store:  # fmt: skip
    """The store of the run: made if there is none, else compared with what is asked for.

    Args:
        place: where it is.
        job: what is done with each sample.
        prints: the fingerprint.
        unit: samples per unit, or None.
        say: is called with each line of progress.
        found: what `specs_of` gives, if that is known.
    """
    folder = place.folder
    names = vocabulary(job.tokenizer) if isinstance(job, TextJob) else None
    if not place.exists(RUN):
        if place.used() and not place.exists(RUN):  # another process may have made it just now
            raise InputError(f"{quoted(folder)} exists and is not a run: choose another folder, or empty it first.")
        specs, shape, seconds = found or specs_of(job)
        source = job.source
        count = len(source) if isinstance(source, Source) else None
        size = unit or _unit_size(specs, seconds, job.batch, 0 if count else 4 * math.prod(shape))
        _check_room(place, specs, count, say)
        _check_memory(size, specs)
        about: dict[str, Any] = {
            "fingerprint": prints, "lengths": [] if count is None else [count],
            "keys_sha256": source.digest(len(source)) if isinstance(source, Source) else None,
            "unit": size, "input_shape": shape, "number_format": job.form, "versions": versions(),
        }  # fmt: skip
        if job.asked.several:
            about["targets"] = len(job.asked)
        if job.ledger:
            about["causes"] = list(LEDGER)
        create(place, about, specs, names)
    store = Store(place)
    _check_memory(store.size, store.specs)
    for name in dict.fromkeys((*prints, *store.about["fingerprint"])):
        value, before = prints.get(name), store.about["fingerprint"].get(name)
        if before != value:
            raise InputError(f"{quoted(folder)} holds another run, whose {name} is {before!r}; this one has {value!r}.")
    if unit is not None and unit != store.size:
        raise InputError(f"{quoted(folder)} holds a run with {store.size} samples per unit; this one has {unit}.")
    store.complete(names)
    if isinstance(job.source, Source):  # a stream is compared while it is read
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
        store.grow(len(source), source.digest(len(source)))


def _unit_size(specs: list[Spec], seconds: float, batch: int, held: int) -> int:
    """Samples per unit: whole batches, within the bounds on time and bytes.

    Args:
        specs: the arrays.
        seconds: what a sample takes.
        batch: samples per forward pass.
        held: bytes of each sample that are in memory until its unit is done.
    """
    each = max(sum(spec.bytes for spec in specs), held, 1)
    most = min(_BYTES // each, int(_SECONDS / max(seconds, 1e-6)), _MOST)
    return max(most // batch, 1) * batch


def _check_room(place: RunPlace, specs: list[Spec], count: int | None, say: Callable[[str], None]) -> None:
    """Says how many bytes the run takes before compression, and refuses it if they are more than there are."""
    each = sum(spec.bytes for spec in specs)
    free = place.free()
    total = "" if count is None else f"{each * count:,} in all; "
    room = f"{free:,} are free" if free is not None else "the store does not tell how many are free"
    say(f"{each:,} bytes per sample before compression; {total}{room}.")
    if free is not None and each * (count or 1) > free:
        raise InputError(
            f"the run takes up to {each * (count or 1):,} bytes, and {quoted(place.folder)} has {free:,}: keep less, such as "
            "keep={'input': 'sum:28'}."
        )


def _check_memory(size: int, specs: list[Spec]) -> None:
    """Refuses units that are larger than the memory of this machine, where that can be told.

    Raises:
        InputError: they are.
    """
    total = memory_of_machine()
    each = sum(spec.bytes for spec in specs)
    if total is not None and size * each > total:
        raise InputError(
            f"a unit is held in memory, and {size:,} samples of {each:,} bytes are more than the {total:,} of this machine: "
            f"take fewer, such as unit={max(min(total // (8 * max(each, 1)), _MOST), 1)}."
        )


def memory_of_machine() -> int | None:
    """The bytes of memory that this machine has; None where that cannot be told."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _loaded(model: Any, tokenizer: Any) -> tuple[Loaded, str]:
    if isinstance(model, str):
        found = models.load(model)
        if tokenizer is not None:
            if found.tokenizer is None and not models.may_read_text(model):
                raise InputError(f"tokenizer= is for networks that read text; got {model!r}.")
            found = replace(found, tokenizer=tokenizer)
        return found, model
    if not isinstance(model, nn.Module):
        raise InputError(f"model is a torch.nn.Module, or a network by name; got {type(model).__name__}.")
    name = Identity.of(model).name
    if tokenizer is not None:
        return Loaded(name, model, None, no_picture, no_picture, tokenizer), name
    return Loaded(name, model, None, *picture_reading(model, Pictures())), name


def _composite(composite: Any) -> Any:
    if isinstance(composite, str):
        return composite
    if not isinstance(composite, Composite):
        raise InputError(f"composite is a name or a Composite; got {composite!r}.")
    return [composite.name, *(f"{place}: {spelled(rule)}" for place, rule in composite.entries)]


def _dtype(model: nn.Module) -> str:
    first = next(iter(model.parameters()), None)
    return "none" if first is None else str(first.dtype).removeprefix("torch.")


def _device_kind(model: nn.Module) -> str:
    first = next(iter(model.parameters()), None)
    return "cpu" if first is None else first.device.type

"""Does the units of a source without a length: it is read from the start, and what is done is compared on the way."""

from __future__ import annotations

from relprop.data.leases import Leases
from relprop.data.processing import PendingUnits, do_unit
from relprop.data.sample_job import SampleJob
from relprop.data.sample_streams import SampleStream
from relprop.data.store import Unit
from relprop.errors import InputError
from relprop.rendering.visible import quoted

_ALL = "all"


def process_stream(work: PendingUnits, job: SampleJob, stream: SampleStream) -> None:
    """Does the units that are not done, and those of samples that came since.

    Raises:
        InputError: the samples that are done are not those of the source, or another process writes the run.
        RelpropError: what is wrong is no sample's fault.
    """
    store = work.store
    with Leases(store.place) as leases:
        if not leases.take(_ALL):
            raise InputError(
                f"another process writes {quoted(store.folder)}, and a source without a length is for one at a time."
            )
        todo = {unit.number for unit in work.todo}
        for unit in store.units():
            if stream.take(len(unit.samples)) < len(unit.samples):
                raise InputError(
                    f"the source has {stream.end} samples, and the run in {quoted(store.folder)} "
                    f"{sum(store.about['lengths'])}: the source changed."
                )
            _same_keys(work, stream, unit)
            if work.stop():
                return
            if unit.number in todo:
                work.finished(do_unit(store, job, unit, work.first))
            stream.forget(unit.samples.stop)
        while not work.stop() and (count := stream.take(store.size)):
            store.extend(count)
            unit = store.units()[-1]
            work.add(unit)
            work.finished(do_unit(store, job, unit, work.first))
            stream.forget(unit.samples.stop)


def _same_keys(work: PendingUnits, stream: SampleStream, unit: Unit) -> None:
    """Refuses a source whose samples are not those of the run."""
    record = work.store.record(unit.number)
    if record is None:
        return
    for number, key in zip(unit.samples, record["keys"], strict=True):
        if stream.keys[number] != key:
            raise InputError(
                f"sample {number} of the source is {quoted(stream.keys[number])}, and that of the run in "
                f"{quoted(work.store.folder)} is {quoted(key)}: the source changed. Explain it into another folder."
            )

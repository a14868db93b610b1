"""What a run gives back: its table, its maps, and one sample at a time. It may still be written meanwhile."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from relprop.data.chunks import decoded
from relprop.data.explained_sample import ExplainedSample, TokensOfSample
from relprop.data.run_addresses import check_path
from relprop.data.store import EXPLAINED, QUARANTINED, STATUS, Store
from relprop.errors import InputError
from relprop.signatures import public

if TYPE_CHECKING:
    from relprop.data.spray import Spray

_NEAR = 64
"""Of how many units the numbers are kept in memory."""


class DatasetRun:
    """The explanations of a data set, in a folder.

    Args:
        folder: where they are.

    Raises:
        FormatError: the folder is not a run, or it is damaged.
    """

    def __init__(self, folder: Any) -> None:
        self.store = Store(folder)
        self._rows: dict[str, tuple[int, int]] = {}
        self._read: set[int] = set()
        self._near: dict[int, tuple[dict[str, Any], dict[str, np.ndarray]]] = {}

    @property
    def folder(self) -> Any:
        """Where it is: a `Path`, or the address of an object store."""
        return self.store.folder

    @property
    def maps(self) -> Any:
        """The zarr array of maps, read lazily: the numbers as they are stored; `scales` has the scale of each."""
        return self.store.array("maps")

    @property
    def scales(self) -> Any:
        """The zarr array with the scale of each map, for the formats float16 and int8."""
        return self.store.array("maps.scale")

    @property
    def targets(self) -> int | None:
        """How many targets were explained for each sample, if the run was asked for several; else None."""
        found = self.store.about.get("targets")
        return None if found is None else int(found)

    def __len__(self) -> int:
        return int(sum(self.store.about["lengths"]))

    def keys(self) -> list[str]:
        """The keys of all samples whose unit is done, in the order of the source.

        Raises:
            FormatError: a file of such a unit is missing or cut.
        """
        self._look()
        return list(self._rows)

    @property
    def table(self) -> np.ndarray:
        """A structured array with key, target, score, residual and status of each sample whose unit is done.

        With several targets, `target`, `score` and `residual` have one entry for each.
        """
        self._look()
        rows = np.array([row for row, _ in self._rows.values()], np.int64)
        longest = max((len(key) for key in self._rows), default=1)
        each = () if self.targets is None else (self.targets,)
        found = np.zeros(len(rows), [
            ("key", f"U{longest}"), ("target", "i8", each), ("score", "f8", each), ("residual", "f8", each), ("status", "u1"),
        ])  # fmt: skip
        found["key"] = list(self._rows)
        for name in ("target", "score", "residual", "status"):
            if len(rows):
                found[name] = self.store.read(name, slice(None))[rows]
        return found

    def to_pandas(self) -> Any:
        """The table as a data frame, with the status in words. Needs pandas.

        With several targets, it has a row for each target of each sample, and a column `which`, their number.
        """
        import pandas

        table, many = self.table, self.targets or 1
        columns = {name: np.repeat(table[name], many) for name in ("key", "status")}
        columns |= {name: table[name].reshape(-1) for name in ("target", "score", "residual")}
        frame = pandas.DataFrame({name: columns[name] for name in ("key", "target", "score", "residual", "status")})
        frame["status"] = frame["status"].map(STATUS)
        if self.targets is not None:
            frame.insert(1, "which", np.tile(np.arange(many), len(table)))
        return frame

    @public(".__getitem__")
    def __getitem__(self, key: str) -> ExplainedSample:
        """One sample by its key.

        Raises:
            InputError: there is no such sample, or its unit is not done.
        """
        if key not in self._rows:
            self._look()
        if key not in self._rows:
            text = (
                "" if isinstance(key, str) else f" Keys are text, also those of numbered samples: write run['{key}']."
            )
            raise InputError(f"no sample that is done has the key {key!r}; keys() lists those that are.{text}")
        row, number = self._rows[key]
        record, numbers = self._unit(number)
        at = row - record["rows"][0]
        status = int(numbers["status"][at])
        reason = record["quarantined"].get(key) if status == QUARANTINED else None
        kept = {}
        for spec in self.store.specs:
            if spec.name in ("maps", "decoder") or (
                spec.name.startswith("layers.") and not spec.name.endswith(".scale")
            ):
                kept[spec.name] = decoded(self.store, spec.name, slice(row, row + 1))[0]
        score, residual, target = (numbers[name][at] for name in ("score", "residual", "target"))
        one = self.targets is None
        tokens = self._tokens(row) if self.texts and status == EXPLAINED else None
        values = kept.pop("maps", None)
        if tokens is not None and values is not None:
            values = values[..., : len(tokens.ids)]
        causes, decoder = None, kept.pop("decoder", None)
        if "causes" in self.store.about:
            told = self.store.read("ledger", row)
            causes = {name: told[..., n] for n, name in enumerate(self.store.about["causes"]) if told[..., n].any()}
        return ExplainedSample(
            key, STATUS[status], reason, int(target) if one else target, float(score) if one else score,
            float(residual) if one else residual, values, kept, record.get("composite"), tokens, causes, decoder,
        )  # fmt: skip

    @property
    def texts(self) -> bool:
        """Whether its samples are texts."""
        return any(spec.name == "tokens.id" for spec in self.store.specs)

    def _tokens(self, row: int) -> TokensOfSample:
        """The tokens of the text of a row."""
        count = int(self.store.read("tokens.length", row))
        ids, words = (self.store.read(name, row)[:count] for name in ("tokens.id", "tokens.word"))
        names = self.store.vocabulary()
        return TokensOfSample(ids.tolist(), [names[n] if n < len(names) else str(n) for n in ids], words.tolist())

    def _unit(self, number: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """The record of a unit that is done, and the numbers of its rows; those of the last units are kept."""
        if number not in self._near:
            record = self.store.record(number)
            if record is None or not self.store.whole(record):
                raise InputError(f"unit {number} is being done again: ask later.")
            rows = slice(*record["rows"])
            numbers = {name: self.store.read(name, rows) for name in ("status", "score", "residual", "target")}
            if len(self._near) >= _NEAR:
                self._near.clear()
            self._near[number] = record, numbers
        return self._near[number]

    @public(".spray")
    def spray(
        self, *, by: Any = "predicted", on: str | None = None, size: int = 14, neighbours: int = 10, method: str = "kmeans",
        view: str | None = None, prototypes: int | None = None, seed: int = 0, which: int = 0,
    ) -> Spray:  # fmt: skip
        """SpRAy: the strategies by which the network decides for each class (Lapuschkin et al. 2019). Needs scikit-learn.

        Maps of one class are summed over blocks, and clustered. Of texts, the relevance of each word is clustered, wherever
        it stands. A class whose maps fall apart clearly, into many and a few,
        may have an artefact that the network uses. Classes of more than 50,000 samples are clustered by prototypes, in
        three passes over their maps.

        Args:
            by: the class of a sample: "predicted", the class with the largest output; "target", the class that was
                explained; a dict from keys to classes, or a list with one for each sample that is done.
            on: the path of a layer that was kept as "channels", where positions should not matter; None takes the maps.
                Of texts, "tokens" takes each token by itself; None takes words.
            size: blocks along each axis of a map.
            neighbours: with how many of its nearest neighbours each map is joined.
            method: "kmeans", or "hdbscan", which may leave samples out.
            view: "tsne" or "umap" for a point in the plane for each sample; it takes long.
            prototypes: how many points stand for the maps of a class; None takes 4,000 for more than 50,000 maps.
            seed: where k-means and views start.
            which: which of several targets, from 0.

        Returns:
            A `Spray`: one entry per class of more than twice as many samples as neighbours, ranked by the silhouette of the
            split into two clusters, ties by the second eigenvalue. It prints as a table; `save("spray.html")` writes a
            page, `to_pandas()` gives a data frame.

        Raises:
            InputError: the run keeps no such maps, an argument is not valid, or no class has enough samples.
            ModuleNotFoundError: scikit-learn is not installed, or umap-learn for view="umap".
        """
        from relprop.data.spray import SprayArguments, spray

        keys = self.keys()
        rows = np.array([row for row, _ in self._rows.values()], np.int64)
        return spray(
            self.store, keys, rows, SprayArguments(by, on, size, neighbours, method, view, prototypes, seed, which)
        )

    @public(".export")
    def export(
        self, to: str, out: str | PathLike[str], *, source: Any = None, model: Any = None, transform: Any = None,
        spray: Spray | None = None,
    ) -> Path:  # fmt: skip
        """Writes the samples that are done for other programs. Memory does not grow with the run.

        Called again after it was stopped, or when more units are done, it writes what is missing.

        Args:
            to: "parquet" for a folder of Parquet files, "hf" for a folder that `datasets.load_from_disk` opens, "hdf5" for
                one HDF5 file, "npz" for a folder of NPZ files, "csv" for the table alone in one file, "virelay" for a
                folder whose `project.yaml` ViRelAy opens.
            out: the folder or file.
            source: the source of the run, for the pictures that ViRelAy shows.
            model: the network by name, for ViRelAy's pictures if they are files; None takes the name that the run has.
            transform: as it was given to the run, for ViRelAy's pictures.
            spray: the clusters that ViRelAy shows, from `spray()`.

        Returns:
            The path that was written.

        Raises:
            InputError: there is no such format, no unit is done, or something else is at `out`.
            ModuleNotFoundError: the library that the format needs is not installed.
        """
        from relprop.data.exports import export

        if "://" in str(out):
            raise InputError(f"an export is written to this machine's file systems; got {str(out)!r}.")
        check_path(out)
        return export(self.store, to, Path(out), source=source, model=model, transform=transform, spray=spray)

    def to_xarray(self) -> Any:
        """An xarray data set of the samples that are done, read lazily and decoded. Needs xarray and dask.

        Its axis `sample` has the keys; its variables are the arrays of the store, without their scales.

        Raises:
            ModuleNotFoundError: xarray or dask is not installed.
        """
        from relprop.data.labelled import to_xarray

        keys = self.keys()
        return to_xarray(self.store, keys, [row for row, _ in self._rows.values()])

    @property
    def quarantined(self) -> dict[str, str]:
        """The samples that were put aside, and why."""
        return {key: why for record in self.store.records() for key, why in record["quarantined"].items()}

    def status(self) -> dict[str, Any]:
        """How far it is: samples done, remaining and quarantined, bytes, and samples per second where it worked."""
        records = list(self.store.records())
        done = sum(record["rows"][1] - record["rows"][0] for record in records)
        seconds = sum(record.get("seconds", 0.0) for record in records)
        rate = done / seconds if seconds else None
        return {
            "samples": len(self), "done": done, "remaining": len(self) - done,
            "quarantined": sum(len(record["quarantined"]) for record in records),
            "bytes": sum(file["bytes"] for record in records for file in record["files"].values()),
            "samples_per_second": rate, "seconds_remaining": (len(self) - done) / rate if rate else None,
        }  # fmt: skip

    def verify(self) -> list[str]:
        """One line for each file that is missing or differs from what was written; empty if all is well."""
        return self.store.verify()

    def _look(self) -> None:
        """Reads the records that came since the last look."""
        new = sorted(self.store.done() - self._read)
        if new:
            self.store.reopen()
        sizes = self.store.sizes() if new else None
        for number in new:
            record = self.store.record(number)
            if record is not None and self.store.whole(record, sizes):
                first = record["rows"][0]
                self._rows |= {key: (first + n, number) for n, key in enumerate(record["keys"])}
                self._read.add(number)
        self._rows = dict(sorted(self._rows.items(), key=lambda pair: pair[1]))

    def __repr__(self) -> str:
        now = self.status()
        return f"Run of {now['samples']} samples in {str(self.folder)!r}: {now['done']} done, {now['quarantined']} quarantined"


@public("relprop.open_run")
def open_run(folder: str | PathLike[str]) -> DatasetRun:
    """Opens the folder of a run, which may still be written.

    Args:
        folder: what `explain_dataset` wrote, or its address in an object store. Its files are not trusted: no code is run from them.

    Raises:
        FormatError: the folder is not a run, it is damaged, or a newer version wrote it.
        InputError: the address cannot be reached.
        ModuleNotFoundError: zarr is not installed.
    """
    return DatasetRun(folder)

"""Exports with a column for each array: Parquet and NPZ, a file for each unit, and CSV, the table alone."""

from __future__ import annotations

import csv as lines
import json
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np

from relprop.data.chunks import Chunk, chunks, content, plain
from relprop.data.exports.export_folder import ExportedUnits
from relprop.data.run_descriptions import NUMBERS
from relprop.data.shards import Spec
from relprop.data.store import STATUS, Store
from relprop.errors import InputError
from relprop.optional import library
from relprop.rendering.visible import quoted
from relprop.results.files import atomic


def parquet(store: Store, out: Path) -> Path:
    """A folder of Parquet files, one for each unit: key, status, reason, and a column for each array.

    Maps and vectors are lists of fixed length; the metadata of their column has the `shape`. Rows that were quarantined have
    nulls.
    """
    arrow = library("pyarrow", "exports to Parquet need pyarrow", "tables")
    writer = library("pyarrow.parquet", "exports to Parquet need pyarrow", "tables").ParquetWriter
    parts = ExportedUnits(store, out, "parquet")
    specs = [spec for spec in content(store) if spec.name != "status"]
    fields = [arrow.field("key", arrow.string()), arrow.field("status", arrow.string())]
    fields += [arrow.field("reason", arrow.string()), *(_field(arrow, store, spec) for spec in specs)]
    schema = arrow.schema(fields)
    for record in parts.missing():
        with (
            atomic.file(out / f"unit-{record['unit']:06d}.parquet") as path,
            writer(path, schema, compression="zstd") as file,
        ):
            for chunk in chunks(store, record):
                words = [STATUS[int(code)] for code in chunk.arrays["status"]]
                found = [arrow.array(plain(chunk.keys)), arrow.array(words), arrow.array(chunk.reasons, arrow.string())]
                found += [_column(arrow, store, spec, chunk) for spec in specs]
                file.write_table(arrow.Table.from_arrays(found, schema=schema))
        parts.done(record)
    return out


def _type(arrow: Any, store: Store, spec: Spec) -> Any:
    scaled = f"{spec.name}.scale" in {one.name for one in store.specs}
    one = arrow.float32() if scaled else arrow.from_numpy_dtype(np.dtype(spec.dtype))
    return arrow.list_(one, int(np.prod(spec.shape))) if spec.shape else one


def _field(arrow: Any, store: Store, spec: Spec) -> Any:
    shape = {"shape": json.dumps(list(spec.shape))} if spec.shape else None
    return arrow.field(spec.name, _type(arrow, store, spec), metadata=shape)


def _column(arrow: Any, store: Store, spec: Spec, chunk: Chunk) -> Any:
    rows, missing = chunk.arrays[spec.name], chunk.bad
    kind = _type(arrow, store, spec)
    if not spec.shape:
        return arrow.array(rows, kind, mask=missing)
    flat = arrow.array(np.ascontiguousarray(rows).reshape(-1))
    # from_arrays of a list of fixed length takes a mask, and still wants the entries that the mask hides
    return arrow.FixedSizeListArray.from_arrays(flat, type=kind, mask=arrow.array(missing))


def npz(store: Store, out: Path) -> Path:
    """A folder of NPZ files, one for each unit, with an array for each of the store's, decoded, and `key` and `reason`."""
    parts = ExportedUnits(store, out, "npz")
    for record in parts.missing():
        count = record["rows"][1] - record["rows"][0]
        with atomic.file(out / f"unit-{record['unit']:06d}.npz") as path, ZipFile(path, "w", ZIP_DEFLATED) as file:
            for spec in content(store):
                with file.open(f"{spec.name}.npy", "w", force_zip64=True) as member:
                    for n, chunk in enumerate(chunks(store, record, [spec.name])):
                        rows = np.ascontiguousarray(chunk.arrays[spec.name])
                        if n == 0:
                            np.lib.format.write_array_header_2_0(member, {
                                "descr": rows.dtype.str, "fortran_order": False, "shape": (count, *rows.shape[1:]),
                            })  # fmt: skip
                        member.write(rows.tobytes())
            for name, words in (("key", plain(record["keys"])), ("reason", _reasons(record))):
                with file.open(f"{name}.npy", "w") as member:
                    np.lib.format.write_array(member, np.array(words), allow_pickle=False)
        parts.done(record)
    return out


def _reasons(record: dict[str, Any]) -> list[str]:
    return [record["quarantined"].get(key, "") for key in record["keys"]]


def csv(store: Store, out: Path) -> Path:
    """The table as a CSV file: key, target, score, residual, status and reason. It has no maps.

    With several targets it has a line for each of them, and a column `which`, their number.
    """
    several = store.about.get("targets")
    header = ("key", *(() if several is None else ("which",)), *NUMBERS, "reason")
    if out.exists() and not _ours(out, header):
        raise InputError(f"{quoted(out)} exists and is not an export: choose another name, or remove it first.")
    with atomic.file(out) as path, open(path, "w", newline="", encoding="utf-8") as file:
        writer = lines.writer(file)
        writer.writerow(header)
        for record in store.records():
            for chunk in chunks(store, record, ()):
                writer.writerows(_lines(chunk, several))
    return out


def _lines(chunk: Chunk, several: int | None) -> list[tuple[Any, ...]]:
    words = [STATUS[int(code)] for code in chunk.arrays["status"]]
    numbers = [chunk.arrays[name].tolist() for name in NUMBERS[:-1]]
    rows = list(zip(plain(chunk.keys), *numbers, words, [r or "" for r in chunk.reasons], strict=True))
    if several is None:
        return rows
    return [(key, n, *(values[n] for values in rest[:-2]), *rest[-2:]) for key, *rest in rows for n in range(several)]


def _ours(path: Path, header: tuple[str, ...]) -> bool:
    """Whether a path is a table that an earlier export wrote."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.readline().rstrip() == ",".join(header).encode()

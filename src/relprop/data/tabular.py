"""Tables as sources: `.csv`, `.jsonl` and `.parquet`, with a row of numbers or the path of a picture for each sample."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from relprop.data.items import Item, Reading, numbers
from relprop.errors import InputError
from relprop.loading.samples import PICTURES
from relprop.optional import library
from relprop.rendering.visible import quoted
from relprop.zoo.images import load_image

TABLES = (".csv", ".jsonl", ".parquet")
PATHS = ("path", "file", "file_name", "filename", "image", "picture")
"""The columns that hold paths if none is named."""
NOT_NUMBERS = ("label", "key", "id", "target", "class")
"""The columns that are not part of a row of numbers unless they are named."""

Row = Callable[[int], dict[str, Any]]
Table = tuple[list[str], int, Row]
"""The names of the columns, how many rows there are, and a function that gives one."""


def read_table(
    path: Path, reading: Reading, target: Any
) -> tuple[str, list[str], Callable[[int], Item], list[str], Row]:
    """The kind, the keys, a function that gives a sample, the columns of a table, and a function that gives a row.

    Args:
        path: the file.
        reading: how samples become inputs.
        target: the target of the run; a column of that name is not part of the input.

    Raises:
        InputError: the file is not a table, or no column holds the input.
    """
    names, count, row = opened_table(path)
    first = row(0)
    column = reading.column
    wanted = [column] if isinstance(column, str) else list(column or ())
    if set(wanted) - set(names):
        raise InputError(f"{quoted(path)} has no column {column!r}; it has {', '.join(names)}.")
    if column is None:
        column = next((name for name in PATHS if name in names and _is_path(first[name])), None)
    if isinstance(column, str) and _is_path(first[column]):

        def picture(n: int) -> Item:
            cells = row(n)
            seen = reading.picture(load_image(path.parent / str(cells[column])))
            rest = {k: typed(v) for k, v in cells.items()}
            return Item(seen, rest.get("label"), rest)

        return "files", [str(row(n)[column]) for n in range(count)], picture, names, row
    chosen = wanted or _numeric(first, target)
    if not chosen:
        raise InputError(f"no column of {quoted(path)} holds pictures or numbers: name it with column=.")

    def one(n: int) -> Item:
        cells = row(n)
        rest = {k: typed(v) for k, v in cells.items()}
        return Item(numbers([cells[name] for name in chosen], chosen), rest.get("label"), rest)

    return "table", [str(n) for n in range(count)], one, names, row


def opened_table(path: Path) -> Table:
    """A table whose first row can be read.

    Raises:
        InputError: the file is not a table, or it has no rows.
    """
    opener = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}[path.suffix.lower()]
    try:
        names, count, row = opener(path)
        if count:
            row(0)
    except (ValueError, KeyError, OSError, csv.Error) as error:
        raise InputError(f"{quoted(path)} is not a table that can be read: {str(error).rstrip('.')}.") from error
    if not count:
        raise InputError(f"the source {quoted(path)} is empty: it has no rows.")
    return names, count, row


def _is_path(cell: Any) -> bool:
    return isinstance(cell, str) and cell.lower().endswith(PICTURES)


def _numeric(first: dict[str, Any], target: Any) -> list[str]:
    left = [name for name in first if name not in NOT_NUMBERS and name != target]
    return [name for name in left if isinstance(typed(first[name]), (int, float))]


def typed(cell: Any) -> Any:
    """A cell as an int or a float if it is one."""
    if not isinstance(cell, str):
        return cell
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return cell


def _csv(path: Path) -> Table:
    with open(path, newline="", encoding="utf-8-sig") as file:
        names, *rows = [line for line in csv.reader(file) if line] or [[]]
    lame = next((n for n, line in enumerate(rows) if len(line) != len(names)), None)
    if lame is not None:
        raise ValueError(f"row {lame} has {len(rows[lame])} cells for {len(names)} columns")
    return names, len(rows), lambda n: dict(zip(names, rows[n], strict=True))


def _jsonl(path: Path) -> Table:
    """Only where lines begin is held in memory."""
    starts, at = [], 0
    with open(path, "rb") as file:
        for line in file:
            if line.strip():
                starts.append(at)
            at += len(line)

    def row(n: int) -> dict[str, Any]:
        with open(path, "rb") as file:
            file.seek(starts[n])
            found = json.loads(file.readline())
        if not isinstance(found, dict):
            raise InputError(f"line {n} is not a JSON object.")
        return found

    return (list(row(0)) if starts else []), len(starts), row


def _parquet(path: Path) -> Table:
    parquet = library("pyarrow.parquet", "Parquet files need pyarrow", "tables")
    table = parquet.read_table(path, memory_map=True)
    return table.column_names, len(table), lambda n: dict(table.slice(n, 1).to_pylist()[0])


def key_column(key: str, names: Sequence[str], row: Callable[[int], Mapping[str, Any]], count: int) -> list[str]:
    """The keys that a column holds.

    Raises:
        InputError: there is no such column.
    """
    if key not in names:
        raise InputError(f"key={key!r} is not a column of the source; it has {', '.join(names) or 'none'}.")
    return [str(row(n)[key]) for n in range(count)]

"""Results as tables: data frames of pandas, and Parquet."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from relprop.optional import library


def pandas_library() -> Any:
    """The library pandas."""
    return library("pandas", "data frames and Parquet need pandas and pyarrow", "tables")


def parquet(result: Any, listed: Callable[[], tuple[Sequence[str], Iterable[Any]]]) -> bytes:
    """A result's data frame as a Parquet file; for a kind without one, the columns and rows of its CSV file."""
    own = getattr(result, "to_pandas", None)
    if own is None:
        columns, rows = listed()
    pandas = pandas_library()
    library("pyarrow", "Parquet needs pyarrow", "tables")
    buffer = io.BytesIO()
    made = pandas.DataFrame(rows, columns=columns) if own is None else own()
    made.set_axis([str(column) for column in made.columns], axis="columns").to_parquet(buffer, index=False)
    return buffer.getvalue()

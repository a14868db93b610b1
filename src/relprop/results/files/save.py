"""Writes results in every format; the suffix of the path chooses it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from relprop.errors import InputError
from relprop.rendering.drawing import Drawing
from relprop.rendering.frames import gif
from relprop.rendering.matrix import TokenMatrix
from relprop.rendering.view import ELSEWHERE, Options
from relprop.rendering.visible import cell
from relprop.results.data_frames import parquet
from relprop.results.files import atomic
from relprop.results.files.encoding import as_json, plain
from relprop.results.files.folder import save_folder
from relprop.results.files.nifti import nifti, nifti_compressed
from relprop.results.files.size import Size
from relprop.results.picture import MARGIN, drawing
from relprop.results.protocol import Result
from relprop.results.report import report_page
from relprop.signatures import check_options, parameters, public
from relprop.version import versions


def save(result: Result, path: str | PathLike[str], **options: Any) -> None:
    """Writes a result; see `Relevance.save`."""
    place = Path(path)
    suffix = ".nii.gz" if place.name.lower().endswith(".nii.gz") else place.suffix.lower()
    if str(fspath(path)).endswith(("/", "\\")) or not suffix or place.is_dir():
        inputs = options.pop("inputs", True)
        if options:
            raise InputError(f"a folder takes inputs=True or False only; got {', '.join(sorted(options))}.")
        save_folder(result, place, inputs=inputs)
        return
    if suffix not in _WRITERS:
        raise InputError(
            f"there is no format {suffix!r}; there are: {', '.join(_WRITERS)}, and a folder: a path without a suffix."
        )
    atomic.write(place, _WRITERS[suffix](result, options))


@public("relprop.report")
def report(
    results: Result | Sequence[Result] | Mapping[str, Result | Sequence[Result]],
    path: str | PathLike[str],
    *,
    title: str = "Report",
    paragraphs: Sequence[str] = (),
    **options: Any,
) -> None:
    """Writes a page that says what was explained, how, and what is missing: inputs, outputs, maps, rules, versions.

    Args:
        results: one result of any kind, several, or a mapping from headings to the result or results under each.
        path: the file to write; it ends in `.html` or `.htm`.
        title: the title of the page.
        paragraphs: more text under the title.
        **options: see `relprop.rendering.Options`.

    Raises:
        InputError: there is no result, the path has another suffix, or the options do not fit.
    """
    check_options(options, [*parameters(report), *parameters(Options)], ELSEWHERE)
    if not isinstance(path, (str, PathLike)):
        raise InputError(
            f"path is where the page goes, as in 'report.html', after the results; got a {type(path).__name__}."
        )
    place = Path(path)
    if place.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"a report is a page: its path ends in .html; got {str(path)!r}.")
    given: Any = results if isinstance(results, (Sequence, Mapping)) else [results]
    page = report_page(given, title=title, paragraphs=paragraphs, options=Options(**options))
    atomic.write(place, page.encode())


def _png(result: Result, options: dict[str, Any]) -> bytes:
    return _raster(result, options, format="PNG", optimize=True)


def _jpg(result: Result, options: dict[str, Any]) -> bytes:
    return _raster(result, options, format="JPEG", quality=92, subsampling=0)


def _raster(result: Result, options: dict[str, Any], **how: Any) -> bytes:
    """A file that is made of pixels."""
    buffer = io.BytesIO()
    size, drawn = _sized(result, options)
    if size is None:
        image = result.to_image(**options)
    elif "scale" in options:
        raise InputError("give scale or width, not both: each of them sets the number of pixels.")
    else:
        image, how = drawn.to_image(size.pixels / drawn.width), how | {"dpi": (size.dpi, size.dpi)}
    image.convert("RGB").save(buffer, **how)
    return buffer.getvalue()


def _gif(result: Result, options: dict[str, Any]) -> bytes:
    """The slices of a volume, or the frames of a video, one after the other."""
    chosen = Options(**{**options, "rate": None})
    views = result.views(chosen)
    if len(views) != 1 or views[0].frames is None:
        what = f"{len(views)} drawings" if len(views) != 1 else f"drawn as {views[0].kind}"
        slices = any(view.frames is not None for view in views)
        fix = "save one sample, R[0].save('map.gif')" if slices else "save it as .png"
        raise InputError(f"a GIF holds the slices of one volume or video; this is {what}: {fix}.")
    return gif(views[0].frames(), options.get("rate"))


def _svg(result: Result, options: dict[str, Any]) -> bytes:
    size, drawn = _sized(result, options)
    return (result.to_svg(**options) if size is None else drawn.to_svg(scale=size.drawn / drawn.width)).encode()


def _pdf(result: Result, options: dict[str, Any]) -> bytes:
    size, drawn = _sized(result, options)
    return drawn.to_pdf(1.0 if size is None else size.drawn / drawn.width)


def _html(result: Result, options: dict[str, Any]) -> bytes:
    if "width" in options or "dpi" in options:
        raise InputError("a page is as wide as its window: width and dpi are for .png, .svg and .pdf.")
    return result.to_html(**options).encode()


def _sized(result: Result, options: dict[str, Any]) -> tuple[Size | None, Drawing]:
    """The size that was asked for, taken out of the options, and the drawing laid out for it."""
    width, dpi = options.pop("width", None), options.pop("dpi", None)
    if width is None and dpi is not None:
        raise InputError("dpi needs width=, such as '170mm': without it a drawing has no size on paper.")
    size = None if width is None else Size.of(width, dpi)
    given = {name: value for name, value in options.items() if name != "scale"}
    room = {} if size is None else {"room": max(size.drawn - 2 * MARGIN, 1.0)}
    return size, drawing(result, Options(**{**room, **given}))


def _json(result: Result, options: dict[str, Any]) -> bytes:
    _no_options("JSON", options)
    content = result.exported().data | {
        "ledger": dict(result.ledger),
        "composite": {"name": result.composite.name, "table": str(result.composite)},
        "unknown": result.unknown,
        "model": None if result.model is None else str(result.model),
        "versions": versions(),
    }
    return as_json(plain(content)) + b"\n"


def _npz(result: Result, options: dict[str, Any]) -> bytes:
    _no_options("NPZ", options)
    found = result.exported()
    arrays = {path: _array(tensor) for path, tensor in found.arrays.items()}
    arrays["about"] = np.array(json.dumps(plain({"composite": result.composite.name} | found.about)))
    buffer = io.BytesIO()
    # No array of objects: nothing is pickled.
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _csv(result: Result, options: dict[str, Any]) -> bytes:
    """A row for each feature or token. Only tables and texts fit; use `.npz` for pictures."""
    columns, rows = _listed(result, options, "CSV")
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows([cell(each) if isinstance(each, str) else _plain(each) for each in row] for row in rows)
    return text.getvalue().encode()


def _plain(each: Any) -> Any:
    return repr(each) if isinstance(each, float) else each


def _listed(result: Result, options: dict[str, Any], what: str) -> tuple[list[str], Iterable[list[Any]]]:
    """The columns and rows of a file that holds a table: the result's own, or those of its views."""
    own = getattr(result, "records", None)
    return (own(options) if own is not None else None) or _records(result, options, what)


def _records(result: Result, options: dict[str, Any], what: str) -> tuple[list[str], list[list[Any]]]:
    chosen = Options(**{"most": result.samples, **options})
    rows: list[list[Any]] = []
    for view in result.views(chosen):
        if isinstance(view.data, TokenMatrix):
            rows += _cells(view.data)
            continue
        if view.kind not in ("table", "text"):
            raise InputError(f"{what} holds tables and texts; this is drawn as {view.kind}: save it as .npz or .json.")
        parts = [(f"{row} by {column}", cell) for (row, column), cell in view.cells.items()]  # of a comparison
        for target, part in parts or [(result.subject(view.sample), view)]:
            rows += [[view.sample, target, name, float(value)] for name, value in part.entries]
    return ["sample", "target", "name", "relevance"], rows


def _cells(shown: TokenMatrix) -> list[list[Any]]:
    """A row for each generated token and each token read before it. The column "sample" numbers the generated one."""
    return [
        [int(r), str(shown.rows[r]), str(shown.columns[c]), float(shown.values[r, c])]
        for r, c in np.argwhere(shown.read)
    ]


def _parquet(result: Result, options: dict[str, Any]) -> bytes:
    _no_options("Parquet", options)
    return parquet(result, lambda: _listed(result, {}, "Parquet"))


def _array(tensor: Tensor) -> np.ndarray:
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().cpu().numpy()


def _no_options(what: str, options: dict[str, Any]) -> None:
    if options:
        raise InputError(f"{what} holds numbers and takes no options of drawing; got {', '.join(sorted(options))}.")


_WRITERS: dict[str, Callable[[Result, dict[str, Any]], bytes]] = {
    ".png": _png,
    ".jpg": _jpg,
    ".jpeg": _jpg,
    ".gif": _gif,
    ".svg": _svg,
    ".pdf": _pdf,
    ".html": _html,
    ".json": _json,
    ".npz": _npz,
    ".csv": _csv,
    ".parquet": _parquet,
    ".nii": nifti,
    ".nii.gz": nifti_compressed,
}

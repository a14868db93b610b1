"""Every format a result is written in, by the suffix of the path."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from relprop.attribution import Relevance
from relprop.attribution.trees import leaves
from relprop.errors import InputError
from relprop.rendering import Options, TokenMatrix, views
from relprop.rendering.report import report_page, versions
from relprop.rendering.visible import cell
from relprop.signatures import check_options, parameters, public
from relprop.storage import atomic, texts
from relprop.storage.encoding import as_json, plain
from relprop.storage.folder import Stored, save_folder


def save(result: Stored, path: str | PathLike[str], **options: Any) -> None:
    """Writes a result; see `Relevance.save`."""
    place = Path(path)
    suffix = place.suffix.lower()
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
    results: Stored | Sequence[Stored] | Mapping[str, Sequence[Stored]],
    path: str | PathLike[str],
    *,
    title: str = "Report",
    paragraphs: Sequence[str] = (),
    **options: Any,
) -> None:
    """Writes a page with what was explained, how, and what is missing: inputs, outputs, maps, rules, versions.

    Args:
        results: one result of any kind, several, or headings and the results under each.
        path: where, ending in `.html`.
        title: of the page.
        paragraphs: more text under the title.
        **options: see `relprop.rendering.Options`.

    Raises:
        InputError: there is no result, the path has another suffix, or the options do not fit.
    """
    check_options(options, [*parameters(report), *parameters(Options)], views.ELSEWHERE)
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


def _png(result: Stored, options: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    result.to_image(**options).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _svg(result: Stored, options: dict[str, Any]) -> bytes:
    return result.to_svg(**options).encode()


def _pdf(result: Stored, options: dict[str, Any]) -> bytes:
    return views.drawing(result, Options(**options)).to_pdf()


def _html(result: Stored, options: dict[str, Any]) -> bytes:
    return result.to_html(**options).encode()


def _json(result: Stored, options: dict[str, Any]) -> bytes:
    _no_options("JSON", options)
    if isinstance(result, Relevance):
        names = ("values", "score", "residual", "target", "output", "layers", "positions")
        content = {name: getattr(result, name) for name in names}
    else:
        content = texts.kept(result)[1]
    content |= {
        "ledger": dict(result.ledger),
        "composite": {"name": result.composite.name, "table": str(result.composite)},
        "unknown": result.unknown,
        "model": None if result.model is None else str(result.model),
        "versions": versions(),
    }
    return as_json(plain(content)) + b"\n"


def _npz(result: Stored, options: dict[str, Any]) -> bytes:
    _no_options("NPZ", options)
    about: dict[str, Any] = {"composite": result.composite.name}
    if isinstance(result, Relevance):
        found = [
            *leaves(result.values, "values"),
            ("score", result.score),
            ("residual", result.residual),
            ("output", result.output),
        ]
        about["target"] = result.target
    else:
        content = texts.kept(result)[1]
        found = [leaf for name, part in content.items() for leaf in leaves(part, name)]
        numbers = {path.partition("[")[0] for path, part in found if isinstance(part, Tensor)}
        about |= {name: part for name, part in content.items() if name not in numbers}
    arrays = {path: _array(tensor) for path, tensor in found if isinstance(tensor, Tensor)}
    arrays["about"] = np.array(json.dumps(plain(about)))
    buffer = io.BytesIO()
    # The format of a file is its content's: no array of objects, so nothing is pickled.
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _csv(result: Stored, options: dict[str, Any]) -> bytes:
    """A row for each feature or token; pictures are better kept as `.npz`."""
    chosen = Options(**{"most": len(result), **options})
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["sample", "target", "name", "relevance"])
    for view in views.views(result, chosen):
        if isinstance(view.data, TokenMatrix):
            writer.writerows(_cells(view.data))
            continue
        if view.kind not in ("table", "text"):
            raise InputError(f"CSV holds tables and texts; this is drawn as {view.kind}: save it as .npz or .json.")
        for name, value in view.entries:
            target = (
                views.target_of(result, view.sample) if isinstance(result, Relevance) else result.rows()[0].explained
            )
            writer.writerow([view.sample, cell(target), cell(name), repr(value)])
    return text.getvalue().encode()


def _cells(shown: TokenMatrix) -> list[list[Any]]:
    """A row for each token read when one was generated; the sample is the number of that one."""
    return [
        [int(r), cell(shown.rows[r]), cell(shown.columns[c]), repr(float(shown.values[r, c]))]
        for r, c in np.argwhere(shown.read)
    ]


def _array(tensor: Tensor) -> np.ndarray:
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().cpu().numpy()


def _no_options(what: str, options: dict[str, Any]) -> None:
    if options:
        raise InputError(f"{what} holds numbers and takes no options of drawing; got {', '.join(sorted(options))}.")


_WRITERS: dict[str, Callable[[Stored, dict[str, Any]], bytes]] = {
    ".png": _png,
    ".svg": _svg,
    ".pdf": _pdf,
    ".html": _html,
    ".json": _json,
    ".npz": _npz,
    ".csv": _csv,
}

"""Runs over data sets, as the page shows them: samples, clusters, and what units stand for. Nothing here knows Gradio."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from relprop.concepts.index import Index, load_index
from relprop.concepts.index_files import MANIFEST
from relprop.data import spray_page
from relprop.data.dataset_run import DatasetRun, open_run
from relprop.data.explained_pictures import pictures_of
from relprop.data.spray import Spray
from relprop.data.store import STATUS
from relprop.data.strategies import COLUMNS as STRATEGIES
from relprop.errors import InputError
from relprop.rendering import html
from relprop.rendering.image import Heatmap
from relprop.rendering.panels import Panel
from relprop.rendering.scale import number
from relprop.rendering.view import Options
from relprop.results.relevance import Relevance
from relprop.web.run_settings import RunSettings

LISTED = 24
"""How many samples are listed at once."""
__all__ = ["STRATEGIES", "BrowsedRun"]
_MEMBERS = 60
_REFERENCES = 12
_SIDE = 112


class BrowsedRun:
    """A run that visitors browse. Nobody writes to it here.

    Args:
        folder: the folder of the run.
        source: its source, for the pictures; None draws the maps alone.
        index: the folder of an index of the same source; None takes one inside of the run's folder.
        labels: the names of the classes.

    Raises:
        FormatError: the folder is no run.
        InputError: the source is another one.
    """

    def __init__(
        self, folder: Path, *, source: Any = None, index: Path | None = None, labels: Sequence[str] | None = None
    ) -> None:
        self.run: DatasetRun = open_run(folder)
        if self.run.targets is not None or self.run.texts:
            raise InputError(
                "the page shows runs over pictures, tables and series with one target per sample; this one is over texts or has "
                "several targets. relprop.open_run reads it."
            )
        self.folder, self.labels = folder, labels
        self.model = str(self.run.store.about["fingerprint"].get("model"))
        self.picture: Callable[[str], Image.Image] | None = (
            pictures_of(self.run.store, source) if source is not None else None
        )
        self.index_folder = index if index is not None else _index_in(folder)
        self.index: Index | None = load_index(self.index_folder) if self.index_folder is not None else None
        self._lock = threading.Lock()
        self._table: np.ndarray | None = None
        self._strategies: dict[tuple[Any, ...], Spray] = {}

    def name_classes(self, labels: Sequence[str] | None) -> None:
        """Takes these names of classes."""
        self.labels = labels

    @property
    def name(self) -> str:
        """The name of its folder, which is all that visitors learn of where it is."""
        return self.folder.resolve().name

    @property
    def drawn(self) -> bool:
        """Whether its maps are over height and width."""
        spec = next((spec for spec in self.run.store.specs if spec.name == "maps"), None)
        return spec is not None and len(spec.shape) in (2, 3)

    def table(self) -> np.ndarray:
        """The table of the run, read again when more units are done."""
        with self._lock:
            if self._table is None or len(self.run.keys()) != len(self._table):
                self._table = self.run.table
            return self._table

    def class_name(self, target: int) -> str:
        """The name of a class, with its number."""
        if target < 0:
            return "no class"
        known = self.labels is not None and target < len(self.labels)
        return f"{self.labels[target]} ({target})" if known and self.labels is not None else f"class {target}"

    def classes(self) -> list[tuple[str, str]]:
        """The classes that were explained, with how many samples each has, as choices."""
        targets, counts = np.unique(self.table()["target"], return_counts=True)
        return [
            (f"{self.class_name(int(t))}: {n:,} samples", str(int(t))) for t, n in zip(targets, counts, strict=True)
        ]

    def chosen(self, asked: RunSettings) -> np.ndarray:
        """The numbers of the samples that fit, in their order."""
        table = self.table()
        fits = np.array([STATUS[n] == asked.status for n in range(max(STATUS) + 1)])[table["status"]]
        if asked.target is not None:
            fits &= table["target"] == asked.target
        found = np.flatnonzero(fits)
        score, residual = table["score"][found], table["residual"][found]
        with np.errstate(all="ignore"):
            by = {"high": -score, "low": score, "residual": -np.abs(residual / score)}.get(asked.order)
        return found if by is None else found[np.argsort(np.nan_to_num(by, nan=np.inf), kind="stable")]

    def key(self, sample: int) -> str:
        """The key of a sample by its number.

        Raises:
            InputError: there is no such sample.
        """
        table = self.table()
        if not 0 <= sample < len(table):
            raise InputError(f"the run has no sample {sample}: they are numbered from 0 to {len(table) - 1}.")
        return str(table["key"][sample])

    def result(self, sample: int) -> Relevance:
        """The relevance of a sample.

        Raises:
            InputError: there is no such sample, or no map of it was kept.
        """
        found = self.run[self.key(sample)].relevance()
        return replace(found, labels=list(self.labels) if self.labels is not None else None)

    def spray(self, asked: RunSettings) -> Spray:
        """The clusters of each class. They are sought once for all visitors, as long as the run does not grow.

        Raises:
            InputError: as in `DatasetRun.spray`.
        """
        wanted = (asked.by, asked.neighbours, asked.size, len(self.table()))
        if wanted not in self._strategies:
            found = self.run.spray(by=asked.by, neighbours=asked.neighbours, size=asked.size)
            if len(self._strategies) > 8:
                self._strategies.clear()
            self._strategies[wanted] = found
        return self._strategies[wanted]


def _index_in(folder: Path) -> Path | None:
    """The folder of an index in the folder of a run, if there is one."""
    return next((place for place in (folder / "index", folder) if (place / MANIFEST).is_file()), None)


# ----------------------------------------------------------------------------------------------------------- samples


def samples_html(browsed: BrowsedRun, asked: RunSettings) -> str:
    """Some samples as buttons, with their maps."""
    found = browsed.chosen(asked)
    start = min(asked.start, max(len(found) - 1, 0)) // LISTED * LISTED
    some = found[start : start + LISTED]
    if not len(some):
        return '<p class="hint">No sample that is done fits.</p>'
    buttons = "".join(_button(browsed, int(n)) for n in some)
    said = f"{start + 1:,} to {start + len(some):,} of {len(found):,} samples; choose one."
    return f'<p class="hint">{said}</p><div class="examples maps" role="group" aria-label="Samples">{buttons}</div>'


def _button(browsed: BrowsedRun, sample: int, more: str = "") -> str:
    row = browsed.table()[sample]
    shown = _thumbnail(browsed, str(row["key"])) if browsed.drawn and STATUS[int(row["status"])] == "explained" else ""
    said = f"{browsed.class_name(int(row['target']))}, {number(float(row['score']))}" if shown or not more else ""
    lines = [html.text(part) for part in (str(row["key"]), said if np.isfinite(row["score"]) else "", more) if part]
    return f'<button type="button" data-n="{sample}">{shown}{"<br>".join(lines)}</button>'


def _thumbnail(browsed: BrowsedRun, key: str) -> str:
    values = browsed.run[key].map
    if values is None:
        return ""
    heatmap = _heatmap(values)
    image = spray_page.over_picture(heatmap, browsed.picture(key)) if browsed.picture is not None else heatmap.image()
    scale = _SIDE / max(image.size)
    image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "PNG")
    return f'<img src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}" alt="">'


def _heatmap(values: np.ndarray) -> Heatmap:
    values = values.astype(np.float64)
    return Heatmap.of(values.sum(0) if values.ndim == 3 else values)


def sample_html(browsed: BrowsedRun, sample: int) -> str:
    """One sample with its map and its numbers, or why it has none."""
    key = browsed.key(sample)
    found = browsed.run[key]
    if found.status != "explained":
        return f"<h3>{html.text(key)}</h3><p>It was put aside: {html.text(found.reason)}.</p>"
    (view,) = browsed.result(sample).views(Options(most=1))
    if browsed.picture is not None and found.map is not None and browsed.drawn:
        picture, heatmap = browsed.picture(key), _heatmap(found.map)
        panels = [
            Panel(picture, "input", smooth=True),
            Panel(spray_page.over_picture(heatmap, picture), "relevance on it", heatmap, bar=False),
            Panel(heatmap, "relevance"),
        ]
        view = replace(view, panels=panels)
    return html.view_html(replace(view, title=f"{key}: {view.title}"))


def sample_code(browsed: BrowsedRun, sample: int) -> str:
    """The code that draws a sample. It runs beside the run's folder."""
    labels = f"\nR.labels = {list(browsed.labels)!a}" if browsed.labels is not None else ""
    return (
        f"import relprop\n\nrun = relprop.open_run({browsed.name!a})\nR = run[{browsed.key(sample)!a}].relevance(){labels}\n"
        'R.save("relevance.html")\nprint(R)\n'
    )


# ---------------------------------------------------------------------------------------------------------- clusters


def clusters_html(browsed: BrowsedRun, found: Spray, asked: RunSettings) -> str:
    """The classes whose explanations fall apart, and the clusters of one with their members as buttons."""
    spray_page.check_maps(browsed.run.store)
    one = chosen_class(found, asked)
    table = browsed.table()
    place = {str(key): n for n, key in enumerate(table["key"])}

    def members(cluster: int) -> str:
        keys = [key for key, n in zip(one.keys, one.clusters, strict=True) if n == cluster]
        shown = "".join(
            f'<button type="button" data-n="{place[key]}">{html.text(key)}</button>' for key in keys[:_MEMBERS]
        )
        more = f"<p class=note>{len(keys) - _MEMBERS:,} more.</p>" if len(keys) > _MEMBERS else ""
        return (
            f"<details><summary>Its {len(keys):,} samples</summary>"
            f'<div class="examples" role="group" aria-label="Samples of cluster {cluster + 1}">{shown}</div>{more}</details>'
        )

    drawn = spray_page.clusters_html(browsed.run.store, one, browsed.picture, members)
    said = f"<p>{html.text(found.verdict)}</p>"
    return f"{said}{spray_page.classes_html(found.classes)}{drawn}{html.key()}"


def chosen_class(found: Spray, asked: RunSettings) -> Any:
    """The strategies of the class that is looked at: the one that was chosen, or the first.

    Raises:
        InputError: that class has too few samples.
    """
    if asked.cluster_class is None:
        return found.classes[0]
    for one in found.classes:
        if one.target == asked.cluster_class:
            return one
    raise InputError(f"class {asked.cluster_class} has too few samples for clusters, or none.")


def clusters_code(browsed: BrowsedRun, asked: RunSettings) -> str:
    """The code that finds the clusters. It runs beside the run's folder."""
    return (
        f"import relprop\n\nrun = relprop.open_run({browsed.name!a})\n"
        f"found = run.spray(by={asked.by!a}, neighbours={asked.neighbours}, size={asked.size})\n"
        'found.save("strategies.html")\nprint(found)\n'
    )


# ------------------------------------------------------------------------------------------------------------- units


def units_html(browsed: BrowsedRun, asked: RunSettings) -> str:
    """The samples in which a unit had the most relevance or activation."""
    index = index_of(browsed)
    layer = asked.layer if asked.layer is not None else next(iter(index.layers))
    unit = index[layer, asked.unit]
    parts = [f"<h3>Unit {unit.unit} of {html.text(layer)}</h3>"]
    if shares := unit.classes(5):
        listed = ", ".join(f"{html.text(browsed.class_name(c))} {share:.1%}" for c, share in shares)
        parts.append(f"<p>Mean share of relevance, by class: {listed}.</p>")
    buttons = []
    for each in unit.references(asked.measure, _REFERENCES):
        where = f"at {', '.join(map(str, each.position))}" if each.position else ""
        buttons.append(_button(browsed, each.sample, f"{asked.measure} {number(each.value)} {where}"))
    shown = "".join(buttons)
    parts.append(f'<div class="examples maps" role="group" aria-label="References">{shown}</div>')
    return "".join(parts)


def unit_rows(browsed: BrowsedRun, asked: RunSettings) -> list[tuple[int, str, float, str]]:
    """The references of a unit: number, key, value and position."""
    index = index_of(browsed)
    unit = index[asked.layer if asked.layer is not None else next(iter(index.layers)), asked.unit]
    return [
        (each.sample, browsed.key(each.sample), each.value, " ".join(map(str, each.position)))
        for each in unit.references(asked.measure, _REFERENCES)
    ]


def index_of(browsed: BrowsedRun) -> Index:
    """The index of the run, whose samples are those of the run.

    Raises:
        InputError: there is none, it is of another model, or it has samples that the run does not have.
    """
    index = browsed.index
    if index is None:
        raise InputError("this run has no index of units: relprop.index(..., folder=...) makes one.")
    if index.about.get("weights_sha256") != browsed.run.store.about["fingerprint"].get("weights_sha256"):
        raise InputError("the index was made of another model than the run.")
    last, done = max((stop for _, stop in index.about["rows"]), default=0), len(browsed.table())
    if last > done or done < len(browsed.run):
        raise InputError(f"the index has {last:,} samples, and {done:,} of the run's {len(browsed.run):,} are done.")
    return index


def units_code(browsed: BrowsedRun, asked: RunSettings) -> str:
    """The code that lists a unit's references. It runs beside the folders of the run and the index."""
    index = index_of(browsed)
    layer = asked.layer if asked.layer is not None else next(iter(index.layers))
    place = browsed.index_folder
    assert place is not None
    inside = place.resolve().is_relative_to(browsed.folder.resolve())
    shown = (
        "/".join((browsed.name, *place.resolve().relative_to(browsed.folder.resolve()).parts)) if inside else place.name
    )
    return (
        f"import relprop\n\nrun, index = relprop.open_run({browsed.name!a}), relprop.load_index({shown!a})\n"
        f"unit = index[{layer!a}, {asked.unit}]\n"
        f"for reference in unit.references({asked.measure!a}, {_REFERENCES}):\n"
        "    print(run.keys()[reference.sample], reference.value, reference.position)\n"
    )

"""The part of the page that browses a run: its samples, the clusters of its explanations, and what units stand for."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from relprop.errors import InputError
from relprop.web import controls, downloads, runs, scripts
from relprop.web.answering import Desk, answered
from relprop.web.gradio_here import gradio
from relprop.web.run_settings import BY, ORDERS, STATUSES, RunSettings, run_settings_of
from relprop.web.runs import BrowsedRun
from relprop.web.scripts import styled

_ALL = "all"


@dataclass(frozen=True, eq=False)
class RunAnswer:
    """What was shown of a run.

    Attributes:
        settings: what was asked.
        file: makes a file of it, of a format.
    """

    settings: RunSettings
    file: Callable[[str], dict[str, str]]


def add(blocks: Any, browsed: BrowsedRun, desk: Desk) -> None:
    """Adds the part to the page that is being made."""
    RunFields(browsed, desk).add()
    blocks.unload(answered(lambda request: desk.leave(str(request.session_hash))))


class RunFields:
    """The fields of the part, and what they do."""

    def __init__(self, browsed: BrowsedRun, desk: Desk) -> None:
        self.browsed, self.desk = browsed, desk

    def add(self) -> None:
        """Adds the fields and their events."""
        gr = gradio()
        self.query = gr.Textbox(visible=False)
        with gr.Tabs(elem_id=self.desk.own("views")) as self.views:
            with gr.Tab("Samples", id="samples"):
                self._samples(gr)
            with gr.Tab("Clusters", id="clusters"):
                self._clusters(gr)
            with gr.Tab("Units", id="units", visible=self.browsed.index is not None):
                self._units(gr)
        self._listen()

    def _samples(self, gr: Any) -> None:
        usual = RunSettings()
        with gr.Row():
            self.target = gr.Dropdown(
                [("all classes", _ALL), *self.browsed.classes()],
                value=_ALL,
                label="Class",
                elem_id=self.desk.own("class"),
                min_width=200,
            )
            self.order = gr.Dropdown(
                _pairs(ORDERS), value=usual.order, label="Order", elem_id=self.desk.own("order"), min_width=200
            )
            self.status = gr.Dropdown(
                _pairs(STATUSES), value=usual.status, label="Samples that were", elem_id=self.desk.own("status"), min_width=200
            )  # fmt: skip
        self.listed = _html(gr, self.desk.own("samples"))
        with gr.Row():
            self.earlier = gr.Button("Earlier samples", size="sm", elem_id=self.desk.own("earlier"))
            self.later = gr.Button("Later samples", size="sm", elem_id=self.desk.own("later"))
        self.start = gr.State(0)
        self.sample = _html(gr, self.desk.own("maps"))
        self.kept = self._downloads(downloads.OF_PICTURES, "samples")

    def _clusters(self, gr: Any) -> None:
        usual = RunSettings()
        with gr.Row():
            self.by = gr.Dropdown(
                _pairs(BY), value=usual.by, label="Samples are grouped by", elem_id=self.desk.own("by"), min_width=200
            )
            self.neighbours = gr.Slider(
                2, 30, value=usual.neighbours, step=1, label="Neighbours of each map", min_width=200
            )
            self.size = gr.Slider(
                2, 32, value=usual.size, step=1, label="Blocks along each side of a map", min_width=200
            )
        self.find = gr.Button("Find clusters", variant="primary", elem_id=self.desk.own("find"))
        self.cluster_class = gr.Dropdown(
            [], label="Class whose clusters are shown", visible=False, elem_id=self.desk.own("cluster-class")
        )
        self.clustered = _html(gr, self.desk.own("clusters"))
        self.kept_clusters = self._downloads(("HTML", "CSV"), "clusters")

    def _units(self, gr: Any) -> None:
        index = self.browsed.index
        layers = {path: len(of.class_sum[0]) for path, of in index.layers.items()} if index is not None else {}
        with gr.Row():
            self.layer = gr.Dropdown(
                [(f"{path} ({count} units)", path) for path, count in layers.items()], value=next(iter(layers), None),
                label="Layer", elem_id=self.desk.own("layer"), min_width=200,
            )  # fmt: skip
            self.unit = gr.Number(0, label="Unit", precision=0, minimum=0, elem_id=self.desk.own("unit"), min_width=120)
            self.measure = gr.Radio(
                ["relevance", "activation"], value="relevance", label="Samples with most", min_width=200
            )
        self.show = gr.Button("Show its samples", variant="primary", elem_id=self.desk.own("show-unit"))
        self.references = _html(gr, self.desk.own("units"))
        self.kept_units = self._downloads(("CSV",), "units")

    def _downloads(self, formats: tuple[str, ...], view: str) -> controls.Downloads:
        kept = controls.Downloads(
            formats, self.desk, self.desk.own(f"run-{view}"), drawing=lambda answer, settings: {}, make=lambda answer, kind: answer.file(kind)
        )  # fmt: skip
        kept.add()
        return kept

    @property
    def fields(self) -> list[Any]:
        """The fields, in the order in which their values come."""
        return [
            self.target, self.order, self.status, self.start, self.by, self.neighbours, self.size, self.cluster_class,
            self.layer, self.unit, self.measure,
        ]  # fmt: skip

    def _listen(self) -> None:
        one = {"concurrency_id": "explanation", "concurrency_limit": 1, "api_visibility": "private"}
        last = {**one, "trigger_mode": "always_last"}
        list_of, said = [self.listed, self.start], controls.told_at(self.listed)
        for event in (self.target.input, self.order.input, self.status.input):
            event(answered(self.first, said), self.fields, list_of, **last)
        self.earlier.click(answered(self.before, said), self.fields, list_of, **last)
        self.later.click(answered(self.after, said), self.fields, list_of, **last)
        shown = [self.sample, *self.kept.outputs]
        place, link = controls.AnswerPlace(self.sample, self.kept), controls.linked(self.kept.link)
        place.on(self.listed.select, self.one, self.fields, shown, **one).then(**link)
        for among in (self.clustered, self.references):
            place.on(among.select, self.elsewhere, self.fields, [self.views, *shown], **one).then(**link)
        clusters = [self.clustered, self.cluster_class, *self.kept_clusters.outputs]
        place, link = controls.AnswerPlace(self.clustered, self.kept_clusters), controls.linked(self.kept_clusters.link)
        for event in (self.find.click, self.cluster_class.input):
            place.on(event, self.found, self.fields, clusters, **last).then(**link)
        units = [self.references, *self.kept_units.outputs]
        place, link = controls.AnswerPlace(self.references, self.kept_units), controls.linked(self.kept_units.link)
        for event in (self.show.click, self.unit.submit):
            place.on(event, self.unit_shown, self.fields, units, **last).then(**link)
        root = gradio().context.Context.root_block
        fields = [field for field in self.fields if field is not self.cluster_class]  # which what is found sets
        whole = [*fields, self.views, self.listed, *shown, *clusters, *units]
        links = [kept.link for kept in (self.kept, self.kept_clusters, self.kept_units)]
        act = controls.opened(self.restored, whole, links)
        root.load(answered(act, said), self.query, whole, js=scripts.ADDRESS, **one)

    def asked(self, view: str, fields: tuple[Any, ...]) -> RunSettings:
        """The settings that the fields hold.

        Raises:
            InputError: a value is none.
        """
        names = (
            "target",
            "order",
            "status",
            "start",
            "by",
            "neighbours",
            "size",
            "cluster_class",
            "layer",
            "unit",
            "measure",
        )
        given = dict(zip(names, fields, strict=True))
        if given["target"] == _ALL:
            given["target"] = None
        return run_settings_of({"view": view, **given})

    def first(self, *fields: Any) -> Any:
        """The samples that fit, from the first."""
        return self._list(self.asked("samples", fields).changed(start=0))

    def before(self, *fields: Any) -> Any:
        """The samples before those that are listed."""
        asked = self.asked("samples", fields)
        return self._list(asked.changed(start=max(asked.start - runs.LISTED, 0)))

    def after(self, *fields: Any) -> Any:
        """The samples after those that are listed."""
        asked = self.asked("samples", fields)
        last = max(len(self.browsed.chosen(asked)) - 1, 0)
        return self._list(asked.changed(start=min(asked.start + runs.LISTED, last // runs.LISTED * runs.LISTED)))

    def _list(self, asked: RunSettings) -> Any:
        return styled(runs.samples_html(self.browsed, asked)), asked.start

    def one(self, *fields: Any, event: Any, request: Any) -> Any:
        """A sample that was chosen."""
        number = controls.number_of(event, "n", len(self.browsed.table()))
        return self._sample(request, self.asked("samples", fields).changed(sample=number))

    def elsewhere(self, *fields: Any, event: Any, request: Any) -> Any:
        """A sample that was chosen among those of a cluster or a unit."""
        return (gradio().Tabs(selected="samples"), *self.one(*fields, event=event, request=request))

    def _sample(self, request: Any, asked: RunSettings) -> Any:
        sample = asked.sample or 0
        shown, code = runs.sample_html(self.browsed, sample), runs.sample_code(self.browsed, sample)

        def file(kind: str) -> dict[str, str]:
            return downloads.made(self.browsed.result(sample), kind, "relevance", {})

        self._keep(request, "samples", RunAnswer(asked, file))
        return (styled(shown), *self.kept.shown(code, asked))

    def _keep(self, request: Any, view: str, answer: RunAnswer) -> None:
        self.desk.sessions.of(str(request.session_hash)).keep(self.desk.own(f"run-{view}"), answer)

    def found(self, *fields: Any, request: Any) -> Any:
        """The clusters of a class."""
        return self._found(request, self.asked("clusters", fields))

    def _found(self, request: Any, asked: RunSettings) -> Any:
        found = self.desk.work.do(str(request.session_hash), lambda: self.browsed.spray(asked))
        targets = [one.target for one in found.classes]
        if asked.cluster_class not in targets:
            asked = asked.changed(cluster_class=None)
        chosen = runs.chosen_class(found, asked)

        def file(kind: str) -> dict[str, str]:
            if kind == "CSV":
                return _csv("strategies", runs.STRATEGIES, found.rows())
            return downloads.written(lambda path: found.save(path), kind, "strategies")

        self._keep(request, "clusters", RunAnswer(asked, file))
        choices = [(self.browsed.class_name(int(target)), str(target)) for target in targets]
        code = runs.clusters_code(self.browsed, asked)
        return (
            styled(runs.clusters_html(self.browsed, found, asked)),
            gradio().update(choices=choices, value=str(chosen.target), visible=True),
            *self.kept_clusters.shown(code, asked),
        )  # fmt: skip

    def unit_shown(self, *fields: Any, request: Any) -> Any:
        """What a unit stands for."""
        return self._unit(request, self.asked("units", fields))

    def _unit(self, request: Any, asked: RunSettings) -> Any:
        shown, code = runs.units_html(self.browsed, asked), runs.units_code(self.browsed, asked)
        rows = runs.unit_rows(self.browsed, asked)
        self._keep(
            request, "units", RunAnswer(asked, lambda kind: _csv("references", ("sample", "key", asked.measure, "position"), rows))
        )  # fmt: skip
        return (styled(shown), *self.kept_units.shown(code, asked))

    def restored(self, query: Any, request: Any) -> Any:
        """The list of samples, and what the page's address asks for."""
        gr = gradio()
        asked = RunSettings.of_link(self.desk.asked(query))
        if asked.target is not None and str(asked.target) not in [value for _, value in self.browsed.classes()]:
            raise InputError(f"the run has no sample of class {asked.target}.")
        skipped = {"samples": 3, "clusters": 4, "units": 3}
        parts: dict[str, Any] = {view: [gr.skip()] * count for view, count in skipped.items()}
        if asked.view == "samples" and asked.sample is not None:
            parts["samples"] = self._sample(request, asked)
        elif asked.view == "clusters":
            parts["clusters"] = self._found(request, asked)
        elif asked.view == "units":
            parts["units"] = self._unit(request, asked)
        fields = [
            _ALL if asked.target is None else str(asked.target), asked.order, asked.status, asked.start, asked.by,
            asked.neighbours, asked.size, asked.layer or gr.skip(), asked.unit, asked.measure,
        ]  # fmt: skip
        if asked == RunSettings():  # a visitor may have begun to ask
            fields = [gr.skip()] * len(fields)
        selected = gr.Tabs(selected=asked.view) if "view=" in self.desk.asked(query) else gr.skip()
        listed = styled(runs.samples_html(self.browsed, asked))
        return (*fields, selected, listed, *parts["samples"], *parts["clusters"], *parts["units"])


def _pairs(choices: dict[str, str]) -> list[tuple[str, str]]:
    return [(said, key) for key, said in choices.items()]


def _html(gr: Any, name: str) -> Any:
    return gr.HTML(styled(""), js_on_load=scripts.CHOOSE, apply_default_css=False, elem_id=name)


def _csv(stem: str, columns: Any, rows: Any) -> dict[str, str]:
    """A table as a file. A spreadsheet takes no cell of it for a formula."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows([[_plain(cell) for cell in row] for row in rows])
    return {"name": f"{stem}.csv", "type": "text/csv", "data": base64.b64encode(text.getvalue().encode()).decode()}


def _plain(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell

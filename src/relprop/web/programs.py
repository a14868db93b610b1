"""What programs may ask the page, by `gradio_client`: one question, whose answer is data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from relprop.errors import InputError
from relprop.web.answering import answered
from relprop.web.gradio_here import gradio
from relprop.web.settings import PageSettings

NAME = "explain"
"""The name of the question. A page of several networks has one for each: `explain`, `explain_1`, ..."""


def add(given: Any, ask: Callable[[Any, PageSettings], Any], maps: Callable[[Any], Any], *, row: bool = False) -> None:
    """Adds the question to the page that is being made.

    Args:
        given: the field of what is asked about.
        ask: answers what that field holds by settings.
        maps: the relevance of an answer, as lists of numbers.
        row: whether what is asked about has rows, one of which is meant.
    """
    gr = gradio()
    target = gr.Number(visible=False, label="target: the number of the class; None is the likeliest", precision=0)
    against = gr.Number(
        visible=False, label="against: the number of the class it is set against; None is nothing", precision=0
    )
    composites = gr.Textbox("auto", visible=False, label="composites: their names, with commas between them")
    values = gr.Checkbox(False, visible=False, label="values: whether the answer holds the relevance itself")
    which = [gr.Number(0, visible=False, label="row: which row of the file", precision=0)] if row else []
    found = gr.JSON(visible=False, label="answer")

    def question(thing: Any, target: Any, against: Any, composites: Any, values: Any, row: Any = None) -> Any:
        if thing is None:
            raise InputError("there is nothing to explain: give a file, as gradio_client.handle_file(path).")
        names = tuple(str(composites or "auto").split(","))
        settings = PageSettings(number(target), number(against), names, row=number(row))
        answer = ask(thing, settings)
        return data_of(answer, maps(answer) if values else None)

    gr.Button(visible=False).click(
        answered(question), [given, target, against, composites, values, *which], found, api_name=NAME, concurrency_id="explanation",
        concurrency_limit=1,
        api_description="Explains what the network says; see the documentation of relprop serve.",
    )  # fmt: skip


def number(value: Any) -> int | None:
    """A class's number as a program gives it.

    Raises:
        InputError: it is none.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value):
        raise InputError(f"a class is its number; got {str(value)[:40]!r}.")
    return int(value)


def data_of(answer: Any, values: Any) -> dict[str, Any]:
    """An answer as data: the largest classes, and the numbers of each score."""
    found: dict[str, Any] = {
        "classes": [
            {"number": n, "name": name, "output": output, "probability": chance}
            for n, name, output, chance in getattr(answer, "classes", ())
        ],
        "scores": rows_of(answer.result.rows()),
        "notices": list(answer.result.notices),
    }
    return found if values is None else found | {"values": values}


def rows_of(rows: Sequence[Any]) -> list[dict[str, Any]]:
    """The numbers of scores."""
    return [
        {
            "explained": row.explained, "score": row.score, "relevance": row.relevance, "residual": row.residual,
            "absorbed": row.absorbed,
        }
        for row in rows
    ]  # fmt: skip

"""What programs may ask the page, by `gradio_client`: one question, whose answer is data."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from relprop.errors import InputError
from relprop.web.answering import answered
from relprop.web.gradio_here import gradio
from relprop.web.settings import PageSettings, settings_of
from relprop.web.text_links import target_of
from relprop.web.texts import TextAnswer, TextRequest

NAME = "explain"
"""The name of the question. A page of several networks has one for each: `explain`, `explain_1`, ..."""


def add_of_files(
    given: Any,
    ask: Callable[[Path, PageSettings], Any],
    relevance: Callable[[Any], Any],
    *,
    rows: bool = False,
) -> None:
    """Adds the question about a file to the page that is being made.

    Args:
        given: the field of the file.
        ask: explains a file by settings.
        relevance: the relevance of an answer, as lists of numbers.
        rows: whether it is a file of numbers: one of its rows is meant, in one of its forms, without some of its columns.
    """
    gr = gradio()
    fields = [
        given,
        _number(gr, "target: the number of the class; None is the likeliest"),
        _number(gr, "against: the number of the class it is set against; None is nothing"),
        *_rules(gr),
    ]
    if rows:
        fields += [
            _number(gr, "row: which row of the file", 0),
            _text(gr, "form: how the file is read: auto, rows, channels, steps or flat", "auto"),
            gr.JSON(visible=False, label="without: the columns that are left out, a list; None leaves out the usual ones"),
        ]  # fmt: skip

    def question(
        file: Any, target: Any = None, against: Any = None, composites: Any = None, values: Any = None, gamma: Any = None,
        first: Any = None, row: Any = None, form: Any = None, without: Any = None,
    ) -> Any:  # fmt: skip
        if file is None:
            raise InputError("there is nothing to explain: give a file, as gradio_client.handle_file(path).")
        settings = settings_of(
            {
                "target": number(target), "against": number(against), "row": number(row), "form": form or None,
                "without": None if without is None else json.dumps(without), **_ruled(composites, gamma, first),
            }
        )  # fmt: skip
        answer = ask(file, settings)
        found = {"classes": _classes(answer), **_account([answer.result])}
        return found | ({"values": relevance(answer)} if values else {})

    _ask(gr, question, fields)


def add_of_texts(ask: Callable[[str, TextRequest], TextAnswer]) -> None:
    """Adds the question about a text to the page that is being made.

    Args:
        ask: explains a text as it was requested.
    """
    gr = gradio()
    fields = [
        _text(gr, "text"),
        _text(gr, "target: the number of the class, or the token as it is written; empty is the likeliest"),
        _text(gr, "against: what it is set against, likewise; empty is nothing"),
        *_rules(gr),
        gr.Checkbox(False, visible=False, label="words: whether the tokens of a word are joined"),
        _number(gr, "generate: how many tokens a language model writes, each of which is explained", 0),
    ]  # fmt: skip

    def question(
        text: Any, target: Any = None, against: Any = None, composites: Any = None, values: Any = None, gamma: Any = None,
        first: Any = None, words: Any = None, generate: Any = None,
    ) -> Any:  # fmt: skip
        settings = settings_of(_ruled(composites, gamma, first))
        wish = TextRequest(
            target_of(target), target_of(against), settings.composites, bool(words), number(generate) or 0,
            settings.gamma, settings.first,
        )  # fmt: skip
        answer = ask(str(text or ""), wish)
        found = {
            "classes": [{"name": name, "probability": chance} for name, chance in answer.likely],
            **_account(answer.results),
        }
        return found | ({"values": [_of_text(each, wish) for each in answer.results]} if values else {})

    _ask(gr, question, fields)


def _ask(gr: Any, question: Callable[..., Any], fields: Sequence[Any]) -> None:
    gr.Button(visible=False).click(
        answered(question), fields, gr.JSON(visible=False, label="answer"), api_name=NAME, concurrency_id="explanation",
        concurrency_limit=1, api_description="Explains what the network says; see the documentation of relprop serve.",
    )  # fmt: skip


def _number(gr: Any, label: str, value: int | None = None) -> Any:
    return gr.Number(value, visible=False, label=label)  # a precision of 0 would round 1.5 to 2


def _text(gr: Any, label: str, value: str | None = None) -> Any:
    return gr.Textbox(value, visible=False, label=label)


def _rules(gr: Any) -> list[Any]:
    """What every question has: which rules, and whether the relevance itself is wanted."""
    return [
        _text(gr, "composites: their names, with commas between them", "auto"),
        gr.Checkbox(False, visible=False, label="values: whether the answer holds the relevance itself"),
        gr.Number(None, visible=False, label="gamma: of the composites that have one; None is their own"),
        _text(gr, "first: the rule of the first layer: composite, flat, wsquare, zbox, zplus or epsilon", "composite"),
    ]


def _ruled(composites: Any, gamma: Any, first: Any) -> dict[str, Any]:
    return {"composites": str(composites or "auto").split(","), "gamma": gamma, "first": first or None}


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


def _classes(answer: Any) -> list[dict[str, Any]]:
    return [
        {"number": n, "name": name, "output": output, "probability": chance}
        for n, name, output, chance in answer.classes
    ]


def _account(results: Sequence[Any]) -> dict[str, Any]:
    """The numbers of each score, and what a reader should know."""
    return {
        "scores": [line for result in results for line in rows_of(result.rows())],
        "notices": list(dict.fromkeys(notice for result in results for notice in result.notices)),
    }


def rows_of(rows: Sequence[Any]) -> list[dict[str, Any]]:
    """The numbers of scores."""
    return [
        {
            "explained": row.explained, "score": row.score, "relevance": row.relevance, "residual": row.residual,
            "absorbed": row.absorbed,
        }
        for row in rows
    ]  # fmt: skip


def _of_text(result: Any, wish: TextRequest) -> dict[str, Any]:
    """The relevance of the tokens or words of a text, or the matrix of what was written."""
    if wish.generate:
        tokens = {"generated": list(result.generated), "tokens": [*result.prompt, *result.generated]}
        return {**tokens, "relevance": result.relevance.tolist()}
    if wish.words:
        return {"tokens": [word.text for word in result.words], "relevance": [word.relevance for word in result.words]}
    return {"tokens": list(result.pieces), "relevance": result.relevance.tolist()}

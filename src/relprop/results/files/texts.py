"""Checks that a folder's content is a text or a generation."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from relprop.results.files.checks import real
from relprop.trees import leaves


def check_text(text: dict[str, Any]) -> None:
    """Refuses content that is not that of a `TextRelevance`.

    Raises:
        ValueError: says what does not fit.
    """
    tokens, spans = text["tokens"], text["spans"]
    if not _all(tokens, str) or not tokens:
        raise ValueError("tokens are not text")
    count = len(tokens)
    if not _all(text["pieces"], str, count) or not _all(text["special"], bool, count):
        raise ValueError("tokens, pieces and special do not match")
    if type(text["target"]) is not str:
        raise ValueError("target is not text")
    if not real(text["relevance"], (count,)):
        raise ValueError("relevance does not fit the tokens")
    if type(text["score"]) is not float or type(text["residual"]) is not float or not _number(text["probability"]):
        raise ValueError("score, residual and probability are not numbers")
    if not isinstance(spans, list) or not spans or not all(_all(span, int, 2, tuple) for span in spans):
        raise ValueError("words are not spans of tokens")
    ends = [end for span in spans for end in span]
    if ends[0] < 0 or ends[-1] > count or ends != sorted(ends) or any(start == stop for start, stop in spans):
        raise ValueError("words are not made of the tokens")
    predictions = text["predictions"]
    if not isinstance(predictions, list) or not all(
        isinstance(each, tuple) and len(each) == 2 and type(each[0]) is str and _number(each[1]) for each in predictions
    ):
        raise ValueError("predictions are not names with probabilities")
    _check_parts(text, count)


def _check_parts(text: dict[str, Any], count: int) -> None:
    """Checks positions, blocks, heads, neurons and layers, if present."""
    positions, layers = text["positions"], text["layers"]
    if not isinstance(positions, dict) or not all(type(n) is str and real(part) for n, part in positions.items()):
        raise ValueError("positions are not numbers under names")
    if not isinstance(layers, dict) or not all(type(name) is str for name in layers):
        raise ValueError("layers have no names")
    if not all(real(leaf) for _, leaf in leaves(layers)):
        raise ValueError("layers are not numbers")
    for name, axes, at in (("blocks", 2, 1), ("heads", 3, 2)):
        part = text[name]
        if part is not None and not (real(part) and part.ndim == axes and part.shape[at] == count):
            raise ValueError(f"{name} do not fit the tokens")
    neurons = text["neurons"]
    if neurons is not None and not (
        isinstance(neurons, list) and all(real(part) and part.ndim == 2 and len(part) == count for part in neurons)
    ):
        raise ValueError("neurons do not fit the tokens")


def check_generation(made: dict[str, Any]) -> None:
    """Refuses content that is not that of a `GenerationRelevance`.

    Raises:
        ValueError: says what does not fit.
    """
    prompt, generated = made["prompt"], made["generated"]
    if not _all(prompt, str) or not _all(generated, str) or not prompt or not generated:
        raise ValueError("tokens are not text")
    rows, columns = len(generated), len(prompt) + len(generated)
    if not _all(made["special"], bool, columns) or not _all(made["names"], str, columns):
        raise ValueError("names and special do not fit the tokens")
    shapes = {"relevance": (rows, columns), "scores": (rows,), "residual": (rows,), "probabilities": (rows,)}
    for name, shape in shapes.items():
        if not real(made[name], shape):
            raise ValueError(f"{name} does not fit the tokens")


def _all(value: Any, kind: type, count: int | None = None, container: type[Collection[Any]] = list) -> bool:
    """Whether this is a list (or another `container`) of `count` values of exactly that type."""
    return (
        isinstance(value, container)
        and (count is None or len(value) == count)
        and all(type(each) is kind for each in value)
    )


def _number(value: Any) -> bool:
    return value is None or type(value) is float

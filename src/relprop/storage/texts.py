"""Results of texts in files: what is kept of them, and how that becomes a result again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from torch import Tensor

from relprop.attribution.trees import leaves
from relprop.engine.ledger import Ledger
from relprop.text import GenerationRelevance, TextRelevance

KINDS: dict[str, type[TextRelevance | GenerationRelevance]] = {"text": TextRelevance, "generation": GenerationRelevance}
# What is written for every kind of result alike.
_MADE = ("composite", "rules", "unknown", "model", "ledger", "notices")


def kept(result: TextRelevance | GenerationRelevance) -> tuple[str, dict[str, Any]]:
    """The kind of a result, and what is kept of it as plain data and tensors."""
    (kind,) = (name for name, made in KINDS.items() if type(result) is made)
    return kind, {name: _plain(getattr(result, name)) for name in _names(type(result))}


def names(kind: str) -> list[str]:
    """What is kept of a result of that kind; nothing where this is no kind of texts."""
    return _names(KINDS[kind]) if kind in KINDS else []


def restored(
    kind: str, content: dict[str, Any], made: dict[str, Any], ledger: Callable[[int], Ledger]
) -> TextRelevance | GenerationRelevance:
    """The result again.

    Args:
        kind: one of `KINDS`.
        content: what was kept of it, by name.
        made: how it was made.
        ledger: makes its ledger, given for how many scores.

    Raises:
        ValueError: the content is not that of such a result.
    """
    own = {name: content[name] for name in names(kind)}
    if kind == "generation":
        _check_generation(own)
        return GenerationRelevance(**own, **made, ledger=ledger(len(own["generated"])))
    if own["decoder"] is not None:
        written = own["decoder"]
        if not isinstance(written, dict) or any(name not in written for name in names(kind)):
            raise ValueError("what was written so far is not described")
        decoder = {name: written[name] for name in names(kind)}
        if decoder["decoder"] is not None:
            raise ValueError("what was written so far has a part of its own")
        _check_text(decoder)
        own["decoder"] = TextRelevance(**decoder, **made | {"notices": []})
    _check_text(own)
    return TextRelevance(**own, **made, ledger=ledger(1))


def _names(kind: type[Any]) -> list[str]:
    return [field.name for field in fields(kind) if field.name not in _MADE]


def _plain(part: Any) -> Any:
    if isinstance(part, TextRelevance):
        return {name: _plain(getattr(part, name)) for name in _names(TextRelevance)}
    return float(part) if isinstance(part, Tensor) and part.ndim == 0 else part  # a score is a number in files


def _check_text(text: dict[str, Any]) -> None:
    tokens, spans = text["tokens"], text["spans"]
    if not _all(tokens, str) or not tokens:
        raise ValueError("tokens are no text")
    count = len(tokens)
    if not _all(text["pieces"], str, count) or not _all(text["special"], bool, count):
        raise ValueError("tokens, pieces and special do not match")
    if type(text["target"]) is not str:
        raise ValueError("target is no text")
    if not _real(text["relevance"], (count,)):
        raise ValueError("relevance is not that of the tokens")
    if type(text["score"]) is not float or type(text["residual"]) is not float or not _number(text["probability"]):
        raise ValueError("score, residual and probability are no numbers")
    if not isinstance(spans, list) or not spans or not all(_all(span, int, 2, tuple) for span in spans):
        raise ValueError("words are no spans of tokens")
    ends = [end for span in spans for end in span]
    if ends[0] < 0 or ends[-1] > count or ends != sorted(ends) or any(start == stop for start, stop in spans):
        raise ValueError("words are not made of the tokens")
    predictions = text["predictions"]
    if not isinstance(predictions, list) or not all(
        isinstance(each, tuple) and len(each) == 2 and type(each[0]) is str and _number(each[1]) for each in predictions
    ):
        raise ValueError("predictions are no names with probabilities")
    _check_parts(text, count)


def _check_parts(text: dict[str, Any], count: int) -> None:
    """Positions, blocks, heads, neurons and layers, where there are any."""
    positions, layers = text["positions"], text["layers"]
    if not isinstance(positions, dict) or not all(type(n) is str and _real(part) for n, part in positions.items()):
        raise ValueError("positions are no numbers under names")
    if not isinstance(layers, dict) or not all(type(name) is str for name in layers):
        raise ValueError("layers have no names")
    if not all(_real(leaf) for _, leaf in leaves(layers)):
        raise ValueError("layers are no numbers")
    for name, axes, at in (("blocks", 2, 1), ("heads", 3, 2)):
        part = text[name]
        if part is not None and not (_real(part) and part.ndim == axes and part.shape[at] == count):
            raise ValueError(f"{name} are not those of the tokens")
    neurons = text["neurons"]
    if neurons is not None and not (
        isinstance(neurons, list) and all(_real(part) and part.ndim == 2 and len(part) == count for part in neurons)
    ):
        raise ValueError("neurons are not those of the tokens")


def _check_generation(made: dict[str, Any]) -> None:
    prompt, generated = made["prompt"], made["generated"]
    if not _all(prompt, str) or not _all(generated, str) or not prompt or not generated:
        raise ValueError("tokens are no text")
    rows, columns = len(generated), len(prompt) + len(generated)
    if not _all(made["special"], bool, columns) or not _all(made["names"], str, columns):
        raise ValueError("names and special are not those of the tokens")
    shapes = {"relevance": (rows, columns), "scores": (rows,), "residual": (rows,), "probabilities": (rows,)}
    for name, shape in shapes.items():
        if not _real(made[name], shape):
            raise ValueError(f"{name} is not that of the tokens")


def _all(value: Any, kind: type, count: int | None = None, container: type = list) -> bool:
    """Whether this is a list of that many values of exactly that type."""
    return (
        isinstance(value, container)
        and (count is None or len(value) == count)  # type: ignore[arg-type]
        and all(type(each) is kind for each in value)  # type: ignore[attr-defined]
    )


def _number(value: Any) -> bool:
    return value is None or type(value) is float


def _real(value: Any, shape: tuple[int, ...] | None = None) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and (shape is None or tuple(value.shape) == shape)

"""Results of texts in files: what is kept of them, and how that becomes a result again."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from torch import Tensor

from relprop.engine.ledger import Ledger
from relprop.text import GenerationRelevance, TextRelevance

KINDS: dict[str, type[TextRelevance | GenerationRelevance]] = {"text": TextRelevance, "generation": GenerationRelevance}
# What is written for every kind of result alike.
_MADE = ("composite", "rules", "unknown", "model", "ledger")


def kept(result: TextRelevance | GenerationRelevance) -> tuple[str, dict[str, Any]]:
    """The kind of a result, and what is kept of it as plain data and tensors."""
    (kind,) = (name for name, made in KINDS.items() if type(result) is made)
    return kind, {name: _plain(getattr(result, name)) for name in _names(type(result))}


def restored(kind: str, content: dict[str, Any], made: dict[str, Any]) -> TextRelevance | GenerationRelevance:
    """The result again.

    Raises:
        ValueError: the content is not that of such a result.
    """
    if kind not in KINDS:
        raise ValueError(f"its kind is {kind!r}")
    own = {name: content[name] for name in _names(KINDS[kind])}
    if kind == "generation":
        generation = GenerationRelevance(**own, **made)
        _check_generation(generation)
        return generation
    if own["decoder"] is not None:
        decoder = {name: own["decoder"][name] for name in _names(TextRelevance)}
        own["decoder"] = TextRelevance(**decoder, **{**made, "ledger": Ledger([])})
        _check_text(own["decoder"])
    text = TextRelevance(**own, **made)
    _check_text(text)
    return text


def _names(kind: type[Any]) -> list[str]:
    return [field.name for field in fields(kind) if field.name not in _MADE]


def _plain(part: Any) -> Any:
    if isinstance(part, TextRelevance):
        return {name: _plain(getattr(part, name)) for name in _names(TextRelevance)}
    return float(part) if isinstance(part, Tensor) and part.ndim == 0 else part  # a score is a number in files


def _check_text(text: TextRelevance) -> None:
    count = len(text.tokens)
    lists = (text.tokens, text.pieces, text.special, text.spans)
    if not count or not all(isinstance(some, list) for some in lists) or {len(some) for some in lists[:3]} != {count}:
        raise ValueError("tokens, pieces and special do not match")
    if not all(isinstance(name, str) for name in (*text.tokens, *text.pieces, text.target)):
        raise ValueError("tokens and target are no text")
    if not isinstance(text.relevance, Tensor) or text.relevance.shape != (count,):
        raise ValueError("relevance is not that of the tokens")
    if not all(
        isinstance(one, Tensor) and one.shape == () and one.is_floating_point() for one in (text.score, text.residual)
    ):
        raise ValueError("score and residual are no numbers")
    if not all(0 <= start < stop <= count for start, stop in text.spans):
        raise ValueError("words are not made of the tokens")


def _check_generation(made: GenerationRelevance) -> None:
    rows, columns = len(made.generated), len(made.prompt) + len(made.generated)
    if not rows or not all(isinstance(name, str) for name in (*made.prompt, *made.generated)):
        raise ValueError("tokens are no text")
    shapes = {"relevance": (rows, columns), "scores": (rows,), "residual": (rows,), "probabilities": (rows,)}
    for name, shape in shapes.items():
        if not isinstance(getattr(made, name), Tensor) or getattr(made, name).shape != shape:
            raise ValueError(f"{name} is not that of the tokens")

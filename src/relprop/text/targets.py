"""The target of a text: a class, a token of the vocabulary, the class of a token, or the span of an answer.

The model's output decides which. Start and end logits are a span. One row per text holds classes. One row per token
holds tokens (the next one, or a masked one) if it is as wide as the vocabulary, else the token's classes.

Index letters: n text, t token, v entry of the vocabulary or class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from relprop.attribution.checks import check_labels
from relprop.attribution.targets import known_labels
from relprop.errors import TargetError
from relprop.results.contrast import Contrast
from relprop.text.batch import Batch, decodes, embeddings, field_of, generates
from relprop.text.tasks import Classes, Task, Vocabulary
from relprop.text.token_tasks import Spans, Tags


@dataclass(frozen=True)
class Rank:
    """The entry with the `place`-th highest score, from 0."""

    place: int


class Question:
    """A target for `relprop.attribute`: it takes one score per text from any model output.

    Args:
        read: makes the task from an output.
        targets: one target per text, in any form that `explain_text` takes.

    Attributes:
        task: the task; None before the first call.
        choices: the choice that each text's target stands for.
    """

    def __init__(self, read: Any, targets: Sequence[Any]) -> None:
        self.read, self.targets = read, targets
        self.task: Task | None = None
        self.choices: list[Any] = []

    def __call__(self, output: Any) -> Tensor:
        """One score per text. Sets `task` and `choices`."""
        self.task = task = self.read(output)
        self.choices = [_understood(task, target, n) for n, target in enumerate(self.targets)]
        rows = [_terms(choice) for choice in self.choices]
        longest = max(map(len, rows))
        total: Any = 0
        for k in range(longest):
            here = [row[k] if k < len(row) else (0, row[0][1]) for row in rows]
            found = task.scores([choice for _, choice in here])
            signs = [sign for sign, _ in here]
            if set(signs) == {1}:
                total = total + found
            else:
                total = total + found * torch.tensor(signs, device=found.device).to(found.dtype)
        return total


def _terms(choice: Any, sign: int = 1) -> list[tuple[int, Any]]:
    """The terms of a choice with their signs: itself, or both sides of a contrast."""
    if isinstance(choice, Contrast):
        return _terms(choice.positive, sign) + _terms(choice.negative, -sign)
    return [(sign, choice)]


def _understood(task: Task, target: Any, n: int) -> Any:
    if isinstance(target, Contrast):
        return Contrast(_understood(task, target.positive, n), _understood(task, target.negative, n))
    if target is None:
        return task.best(n, 1)[0]
    if isinstance(target, Rank):
        found = task.best(n, target.place + 1)
        if len(found) <= target.place:
            raise TargetError(f"top={target.place + 1}, but there are only {len(found)} scores.")
        return found[target.place]
    return task.choice(target, n)


def read_output(
    output: Any, model: Any, tokenizer: Any, batch: Batch, labels: Any, mask: int | None, longest: int
) -> Task:
    """The task that the model's output belongs to.

    Raises:
        TargetError: the output is neither classes nor tokens nor a span, or `mask` or `labels` do not fit it.
    """
    task = _task(output, model, tokenizer, batch, labels, mask, longest)
    if mask is not None and not isinstance(task, Vocabulary):
        raise TargetError(
            f"mask={mask} is for models that fill masks with tokens; this one answers otherwise. Leave it out."
        )
    if labels is not None and isinstance(task, (Vocabulary, Spans)):
        raise TargetError("labels= names classes, and this model has none: it answers with tokens. Leave it out.")
    return task


def _task(output: Any, model: Any, tokenizer: Any, batch: Batch, labels: Any, mask: int | None, longest: int) -> Task:
    first, last = field_of(output, "start_logits"), field_of(output, "end_logits")
    if isinstance(first, Tensor) and isinstance(last, Tensor):
        return Spans(first, last, batch, longest)
    logits = output if isinstance(output, Tensor) else field_of(output, "logits")
    if logits is None and isinstance(output, (tuple, list)) and output and isinstance(output[0], Tensor):
        logits = output[0]
    if not isinstance(logits, Tensor):
        raise TargetError(
            f"the model answers a {type(output).__name__} without logits: pass a model with a head for a task, or a callable "
            "target, output -> (N,)."
        )
    texts, named = len(batch.texts), labels if labels is not None else known_labels(model)
    if logits.shape == (texts,):
        logits = logits[:, None]  # one number per text
    if logits.ndim == 2 and logits.shape[0] == texts:
        check_labels(labels, logits)
        return Classes(logits, named, getattr(getattr(model, "config", None), "problem_type", None))
    speaks = logits.ndim == 3 and _speaks(model, tokenizer, logits.shape[-1], labels)
    if logits.shape[:-1] == batch.ids.shape and not speaks:
        check_labels(labels, logits.flatten(0, 1))
        return Tags(logits, batch, named)
    if not speaks:
        raise TargetError(
            f"the model's logits for {texts} texts of {batch.ids.shape[1]} tokens have the shape {tuple(logits.shape)}: "
            "neither classes (N, C), nor classes or the vocabulary at each token (N, T, V). Pass a callable target, "
            "output -> (N,)."
        )
    every = torch.arange(texts, device=logits.device)
    if decodes(model):
        return Vocabulary(logits[:, -1], tokenizer)
    at = [_place(model, tokenizer, batch, n, mask) for n in range(len(batch.texts))]
    # counted from the end: the model may return logits for the last tokens only
    back = torch.tensor(at, device=logits.device) - batch.ids.shape[1]
    return Vocabulary(logits[every, back], tokenizer)


def _place(model: Any, tokenizer: Any, batch: Batch, n: int, mask: int | None) -> int:
    """The position whose logits are explained: that of the mask, else of the last token, for the next one."""
    real = batch.real(n).tolist()
    sign = getattr(tokenizer, "mask_token_id", None)
    masks = [at for at, i in zip(real, batch.texts[n].ids, strict=True) if i == sign and sign is not None]
    if not masks:
        if mask is not None:
            raise TargetError(f"mask={mask}, but text {batch.begin + n} has no mask.")
        if sign is not None and not generates(model):
            raise TargetError(
                f"the model fills masks, and text {batch.begin + n} has none: write {tokenizer.mask_token!r} where the token is asked for."
            )
        return int(real[-1])
    if mask is None and len(masks) > 1:
        raise TargetError(
            f"text {batch.begin + n} has {len(masks)} masks: say which one, mask=0 to mask={len(masks) - 1}."
        )
    if not 0 <= (mask or 0) < len(masks):
        raise TargetError(f"mask={mask}, but text {batch.begin + n} has {len(masks)} masks: 0 to {len(masks) - 1}.")
    return int(masks[mask or 0])


def _speaks(model: Any, tokenizer: Any, width: int, labels: Sequence[str] | None) -> bool:
    """Whether rows of this width are scores of the vocabulary, rather than of as many classes."""
    named = len(labels) if labels is not None else len(known_labels(model) or ())
    head = getattr(model, "get_output_embeddings", None)
    if width == named and (labels is not None or (callable(head) and head() is None and not generates(model))):
        return False
    table = embeddings(model)
    size = len(tokenizer) if hasattr(tokenizer, "__len__") else 0
    return width >= size > 0 or (table is not None and table.shape[0] == width)

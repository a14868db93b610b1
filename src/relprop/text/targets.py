"""What is explained of a text: a class, a token of the vocabulary, or the span of an answer.

The output of the model tells which: two numbers per token are a span, a row per text are classes, and a row per token
as wide as the vocabulary are tokens, the next one or a masked one.

Index letters: n text, t token, v entry of the vocabulary or class.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from relprop.attribution.checks import check_labels
from relprop.attribution.targets import Contrast, class_of, known_labels
from relprop.errors import TargetError, TargetIndexError
from relprop.text.batch import Batch, embeddings

Choice = Any
"""What a target stands for in one task: the index of a row's entry, or the first and last token of a span."""


@dataclass(frozen=True)
class Rank:
    """The entry that comes `place`-th by its score, from 0."""

    place: int


class Task(ABC):
    """What can be asked of an output."""

    @abstractmethod
    def best(self, n: int, count: int) -> list[Choice]:
        """The choices with the highest scores for text n, best first."""

    @abstractmethod
    def choice(self, target: Any, n: int) -> Choice:
        """What a target stands for."""

    @abstractmethod
    def scores(self, choices: Sequence[Choice]) -> Tensor:
        """One score per text; they carry relevance."""

    @abstractmethod
    def probability(self, choice: Choice, n: int) -> float | None:
        """How sure the model is of it, where its scores are those of a distribution."""

    @abstractmethod
    def name(self, choice: Choice, n: int) -> str:
        """The choice as people call it."""


@dataclass
class _Entries(Task):
    """One entry of a row of scores per text."""

    rows: Tensor  # (N, V)

    def best(self, n: int, count: int) -> list[Choice]:
        return self.rows[n].detach().topk(min(count, self.rows.shape[1])).indices.tolist()

    def scores(self, choices: Sequence[Choice]) -> Tensor:
        every = torch.arange(len(choices), device=self.rows.device)
        return self.rows[every, torch.tensor(list(choices), device=self.rows.device)]

    def probability(self, choice: Choice, n: int) -> float | None:
        return float(self.rows[n].detach().float().softmax(0)[choice])

    def index(self, target: Any) -> int:
        index = _as_int(target)
        width = self.rows.shape[1]
        if not -width <= index < width:
            raise TargetIndexError(f"target {index} is out of range: the model has {width} scores, 0 to {width - 1}.")
        return index % width


@dataclass
class Classes(_Entries):
    """A class, by its index or its label."""

    labels: Sequence[str] | None
    several: bool  # each class has a sigmoid of its own

    def choice(self, target: Any, n: int) -> Choice:
        return class_of(target, self.labels) if isinstance(target, str) else self.index(target)

    def probability(self, choice: Choice, n: int) -> float | None:
        if self.several:
            return float(self.rows[n].detach().float().sigmoid()[choice])
        return None if self.rows.shape[1] == 1 else super().probability(choice, n)

    def name(self, choice: Choice, n: int) -> str:
        return str(self.labels[choice]) if self.labels is not None and choice < len(self.labels) else str(choice)


@dataclass
class Vocabulary(_Entries):
    """A token of the vocabulary, by its id or as a string."""

    tokenizer: Any

    def choice(self, target: Any, n: int) -> Choice:
        if not isinstance(target, str):
            return self.index(target)
        spelled = spellings(self.tokenizer, target)
        for index in spelled:
            self.index(index)
        row = self.rows[n].detach()
        return max(spelled, key=lambda index: float(row[index]))

    def name(self, choice: Choice, n: int) -> str:
        return decoded(self.tokenizer, choice)


@dataclass
class Spans(Task):
    """The span of an answer: the score of its first token plus that of its last."""

    first: Tensor  # (N, T)
    last: Tensor
    batch: Batch
    longest: int = 30

    def _allowed(self, n: int) -> list[int]:
        text, real = self.batch.texts[n], self.batch.real(n).tolist()
        pair = any(text.second)
        return [at for k, at in enumerate(real) if not text.special[k] and (text.second[k] or not pair)]

    def best(self, n: int, count: int) -> list[Choice]:
        allowed = self._allowed(n)
        first, last = self.first[n].detach().float().tolist(), self.last[n].detach().float().tolist()
        spans = [(s, e) for k, s in enumerate(allowed) for e in allowed[k : k + self.longest]]
        return sorted(spans, key=lambda span: -(first[span[0]] + last[span[1]]))[:count]

    def choice(self, target: Any, n: int) -> Choice:
        allowed = self._allowed(n)
        if isinstance(target, str):
            wanted = " ".join(target.split()).casefold()
            offset = self._offset(n)
            for k, s in enumerate(allowed):
                for e in allowed[k:]:
                    if (
                        " ".join("".join(self.batch.texts[n].pieces[s - offset : e + 1 - offset]).split()).casefold()
                        == wanted
                    ):
                        return s, e
            raise TargetError(f"the answer {target!r} is no span of tokens of the text that was given.")
        if isinstance(target, tuple) and len(target) == 2:
            s, e = (_as_int(t) + self._offset(n) for t in target)
            if s in allowed and e in allowed and s <= e:
                return s, e
        raise TargetError(
            "the answer to a question is a str out of the text, or a tuple (first token, last token) inside it; "
            f"got {target!r}."
        )

    def scores(self, choices: Sequence[Choice]) -> Tensor:
        every = torch.arange(len(choices), device=self.first.device)
        s, e = torch.tensor(list(choices), device=self.first.device).T
        return self.first[every, s] + self.last[every, e]

    def probability(self, choice: Choice, n: int) -> float | None:
        hidden = self.batch.mask[n] == 0
        first, last = (
            row[n].detach().float().masked_fill(hidden, -torch.inf).softmax(0) for row in (self.first, self.last)
        )
        return float(first[choice[0]] * last[choice[1]])

    def name(self, choice: Choice, n: int) -> str:
        offset = self._offset(n)
        return "".join(self.batch.texts[n].pieces[choice[0] - offset : choice[1] + 1 - offset]).strip()

    def _offset(self, n: int) -> int:
        return int(self.batch.real(n)[0])


class Question:
    """A target for `relprop.attribute`: one score per text, out of whatever the model answers.

    Args:
        read: makes the task from an output.
        targets: one per text, in any form that `explain_text` takes.

    Attributes:
        task: the task, once the model has answered.
        choices: what each text's target was taken for.
    """

    def __init__(self, read: Any, targets: Sequence[Any]) -> None:
        self.read, self.targets = read, targets
        self.task: Task | None = None
        self.choices: list[Any] = []

    def __call__(self, output: Any) -> Tensor:
        self.task = task = self.read(output)
        self.choices = [_understood(task, target, n) for n, target in enumerate(self.targets)]
        positive = task.scores([c.positive if isinstance(c, Contrast) else c for c in self.choices])
        against = [isinstance(c, Contrast) for c in self.choices]
        if not any(against):
            return positive
        negative = task.scores([c.negative if isinstance(c, Contrast) else c for c in self.choices])
        return positive - negative * torch.tensor(against, device=positive.device).to(positive.dtype)


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
    """The task that the model's output is an answer to.

    Raises:
        TargetError: the output is neither classes nor tokens of the vocabulary nor a span.
    """
    first, last = _field(output, "start_logits"), _field(output, "end_logits")
    if isinstance(first, Tensor) and isinstance(last, Tensor):
        return Spans(first, last, batch, longest)
    logits = output if isinstance(output, Tensor) else _field(output, "logits")
    if logits is None and isinstance(output, (tuple, list)) and output and isinstance(output[0], Tensor):
        logits = output[0]
    if not isinstance(logits, Tensor):
        raise TargetError(
            f"the model answers a {type(output).__name__} without logits: pass a model with a head for a task, or a callable "
            "target, output -> (N,)."
        )
    config = getattr(model, "config", None)
    if logits.ndim == 2:
        check_labels(labels, logits)
        several = getattr(config, "problem_type", None) == "multi_label_classification"
        return Classes(logits, labels if labels is not None else known_labels(model), several)
    if logits.ndim != 3 or not _speaks(model, tokenizer, logits.shape[-1]):
        raise TargetError(
            f"the model's logits have the shape {tuple(logits.shape)}: neither classes (N, C) nor the vocabulary at each "
            "token (N, T, V). Pass a callable target, output -> (N,)."
        )
    every = torch.arange(len(batch.texts), device=logits.device)
    if getattr(config, "is_encoder_decoder", False):
        return Vocabulary(logits[:, -1], tokenizer)
    at = [_place(model, tokenizer, batch, n, mask) for n in range(len(batch.texts))]
    # counted from the end: the model may answer for the last tokens only
    back = torch.tensor(at, device=logits.device) - batch.ids.shape[1]
    return Vocabulary(logits[every, back], tokenizer)


def _place(model: Any, tokenizer: Any, batch: Batch, n: int, mask: int | None) -> int:
    """Where the token in question stands: at the mask, or it follows the last token."""
    real = batch.real(n).tolist()
    sign = getattr(tokenizer, "mask_token_id", None)
    masks = [at for at, i in zip(real, batch.texts[n].ids, strict=True) if i == sign and sign is not None]
    if not masks:
        if mask is not None:
            raise TargetError(f"mask={mask}, but text {n} has no mask.")
        if sign is not None and not generates(model):
            raise TargetError(
                f"the model fills masks, and text {n} has none: write {tokenizer.mask_token!r} where the token is asked for."
            )
        return int(real[-1])
    if mask is None and len(masks) > 1:
        raise TargetError(f"text {n} has {len(masks)} masks: say which one, mask=0 to mask={len(masks) - 1}.")
    if not 0 <= (mask or 0) < len(masks):
        raise TargetError(f"mask={mask}, but text {n} has {len(masks)} masks: 0 to {len(masks) - 1}.")
    return int(masks[mask or 0])


def generates(model: Any) -> bool:
    """Whether the model says what comes next. One that does not tell does, as far as we know."""
    tells = getattr(model, "can_generate", None)
    return bool(tells()) if callable(tells) else True


def _speaks(model: Any, tokenizer: Any, width: int) -> bool:
    """Whether rows of this width are scores of the vocabulary."""
    table = embeddings(model)
    size = len(tokenizer) if hasattr(tokenizer, "__len__") else 0
    return width >= size > 0 or (table is not None and table.shape[0] == width)


def spellings(tokenizer: Any, target: str) -> list[int]:
    """The ids of a string that is one token: as given, and with a space before it.

    Raises:
        TargetError: it is several tokens, or unknown to the tokenizer.
    """
    if not target:
        raise TargetError("the target is an empty str: write a token, or pass an id.")
    unknown = getattr(tokenizer, "unk_token_id", None)
    tried = [target] if target[:1].isspace() else [target, f" {target}"]
    pieces = [list(tokenizer(some, add_special_tokens=False)["input_ids"]) for some in tried]
    found = [ids[0] for ids in pieces if len(ids) == 1 and ids[0] != unknown]
    if not found:
        named = tokenizer.convert_tokens_to_ids(target)
        if isinstance(named, int) and named not in (unknown, -1):
            found = [named]
    if found:
        return list(dict.fromkeys(found))
    ids = min((ids for ids in pieces if ids), key=len, default=[])
    if unknown in ids or not ids:
        raise TargetError(f"the target {target!r} is not in the tokenizer's vocabulary.")
    names = ", ".join(map(repr, tokenizer.convert_ids_to_tokens(ids)))
    raise TargetError(
        f"the target {target!r} is {len(ids)} tokens ({names}), and a score belongs to one: name the first of them, or pass "
        "an id. explain_generation explains all tokens of an answer."
    )


def decoded(tokenizer: Any, index: int) -> str:
    """A token as it reads."""
    return str(tokenizer.decode([int(index)]))


def _field(output: Any, name: str) -> Any:
    return output.get(name) if isinstance(output, dict) else getattr(output, name, None)


def _as_int(target: Any) -> int:
    if isinstance(target, Tensor) and target.numel() == 1 and not target.is_floating_point():
        return int(target)
    if isinstance(target, bool) or not hasattr(target, "__index__") or isinstance(target, Tensor):
        raise TargetError(
            f"target must be a str, an int, a Contrast, a callable or None, or a list of these; got {target!r}."
        )
    return int(target)

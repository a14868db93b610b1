"""Tasks on a model's output: one entry of a row of scores, which is a class or a token of the vocabulary.

Index letters: n text, v entry of the vocabulary or class.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from relprop.attribution.targets import class_of
from relprop.errors import TargetError, TargetIndexError

Choice = Any
"""What a target stands for in a task: the index of an entry, a token and its class, or the ends of a span."""


class Task(ABC):
    """The base of tasks: how to choose, score and name what an output holds."""

    @abstractmethod
    def best(self, n: int, count: int) -> list[Choice]:
        """The choices with the highest scores for text n, best first."""

    def rivals(self, choice: Choice, n: int, count: int) -> list[Choice]:
        """The alternatives to a choice, itself included, best first."""
        return self.best(n, count)

    @abstractmethod
    def choice(self, target: Any, n: int) -> Choice:
        """The choice that a target stands for."""

    @abstractmethod
    def scores(self, choices: Sequence[Choice]) -> Tensor:
        """One score per text, with gradients."""

    @abstractmethod
    def probability(self, choice: Choice, n: int) -> float | None:
        """The model's probability for a choice; None if its scores are not a distribution."""

    @abstractmethod
    def name(self, choice: Choice, n: int) -> str:
        """The name of a choice, for people."""


@dataclass
class Entries(Task):
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
        index = as_int(target)
        width = self.rows.shape[1]
        if not -width <= index < width:
            raise TargetIndexError(f"target {index} is out of range: the model has {width} scores, 0 to {width - 1}.")
        return index % width


@dataclass
class Classes(Entries):
    """A class, by its index or its label."""

    labels: Sequence[str] | None
    problem: str | None  # the problem type that the model's config names

    def choice(self, target: Any, n: int) -> Choice:
        return class_of(target, self.labels) if isinstance(target, str) else self.index(target)

    def probability(self, choice: Choice, n: int) -> float | None:
        if self.problem == "multi_label_classification":  # each class has a sigmoid of its own
            return float(self.rows[n].detach().float().sigmoid()[choice])
        alone = self.problem == "regression" or self.rows.shape[1] == 1
        return None if alone else super().probability(choice, n)

    def name(self, choice: Choice, n: int) -> str:
        return str(self.labels[choice]) if self.labels is not None and choice < len(self.labels) else str(choice)


@dataclass
class Vocabulary(Entries):
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


def spellings(tokenizer: Any, target: str) -> list[int]:
    """The ids of a string that is one token, as given and with a space before it.

    Raises:
        TargetError: the string is empty, several tokens, or unknown to the tokenizer.
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


def as_int(target: Any) -> int:
    """An int from an int or from an integer tensor of one entry.

    Raises:
        TargetError: it is something else.
    """
    if isinstance(target, Tensor) and target.numel() == 1 and not target.is_floating_point():
        return int(target)
    if isinstance(target, bool) or not hasattr(target, "__index__") or isinstance(target, Tensor):
        raise TargetError(
            f"target must be a str, an int, a Contrast, a callable or None, or a list of these; got {target!r}."
        )
    return int(target)

"""Replacements for tokens: another token, none at all, or one that nothing attends to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from relprop.errors import InputError
from relprop.evaluation.replacements import Replacement
from relprop.evaluation.subject import Subject
from relprop.evaluation.units import UnitMap
from relprop.trees import leaves


@dataclass(frozen=True, eq=False, repr=False)
class ConstantToken(Replacement):
    """A token, such as the tokenizer's mask token.

    Args:
        id: its id.
    """

    alone: ClassVar[bool] = False

    id: int

    def draw(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """The id in the shape of the text."""
        return torch.full_like(x, self.id)

    def check(self, subject: Subject) -> None:
        """Refuses what is not text."""
        _texts(self, subject)


@dataclass(frozen=True, eq=False, repr=False)
class Delete(Replacement):
    """Nothing: tokens are deleted, and those that are left move up. Padding fills the row, hidden by the attention mask.

    A text of which nothing is left becomes one token of padding.

    Args:
        pad: the id of padding.
        side: where padding goes: "right" or "left".
    """

    alone: ClassVar[bool] = False

    pad: int = 0
    side: str = "right"

    def draw(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Nothing."""
        return x

    def rows(self, subject: Subject, units: UnitMap, samples: Tensor, gone: Tensor, drawn: Tensor) -> Any:
        """The shortened texts."""
        rows = subject.rows(samples)
        ids, attention = rows["input_ids"], rows["attention_mask"]
        kept = ~units.entries(gone, samples) & attention.bool()
        kept[:, 0] |= ~kept.any(1)
        # A stable sort by "not kept" moves what is kept to the front, in its order; for the left, to the end.
        order = (kept if self.side == "left" else ~kept).long().argsort(dim=1, stable=True)
        mask = kept.gather(1, order)
        moved = {path: row.gather(1, order) for path, row in rows.items() if row.shape == ids.shape}
        emptied = (~(~units.entries(gone, samples) & attention.bool()).any(1))[:, None]
        moved["input_ids"] = torch.where(mask & ~emptied, moved["input_ids"], self.pad)
        return {**rows, **moved, "attention_mask": mask.to(attention.dtype)}

    def check(self, subject: Subject) -> None:
        """Refuses texts without an attention mask, and options that do not exist."""
        _masked(self, subject)
        if self.side not in ("right", "left"):
            raise InputError(f"side must be 'right' or 'left'; got {self.side!r}.")


@dataclass(frozen=True, eq=False, repr=False)
class Unattended(Replacement):
    """The token stays where it is, and the attention mask hides it."""

    alone: ClassVar[bool] = False

    def draw(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Nothing."""
        return x

    def rows(self, subject: Subject, units: UnitMap, samples: Tensor, gone: Tensor, drawn: Tensor) -> Any:
        """The texts with other masks.

        Raises:
            InputError: a text would have nothing left to attend to.
        """
        rows = subject.rows(samples)
        mask = rows["attention_mask"] * ~units.entries(gone, samples)
        if not bool(mask.bool().any(1).all()):
            raise InputError(
                "Unattended() hides every token of a text, which leaves nothing to attend to. Let the tokenizer add its own "
                "tokens, or use Delete()."
            )
        return {**rows, "attention_mask": mask}

    def check(self, subject: Subject) -> None:
        """Refuses texts without an attention mask."""
        _masked(self, subject)


def _texts(replacement: Replacement, subject: Subject) -> None:
    if subject.main.is_floating_point() or subject.main.ndim != 2:
        raise InputError(f"{replacement!r} is for texts, ids of shape (N, T); got {subject.main.dtype}.")


def _masked(replacement: Replacement, subject: Subject) -> None:
    _texts(replacement, subject)
    found = dict(leaves(subject.inputs))
    mask = found.get("inputs['attention_mask']")
    if mask is None or mask.shape != subject.main.shape or "inputs['input_ids']" not in found:
        raise InputError(
            f"{replacement!r} needs a tokenizer's answer: inputs with 'input_ids' and an 'attention_mask' of the same shape."
        )

"""What is done with each text of a run: the relevance of its tokens becomes rows of one length.

Index letters: n text, t token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from relprop.attribution import attribute_each
from relprop.data.items import Item
from relprop.data.sample_job import SampleJob, as_array, joined, numbers_of, top_outputs
from relprop.data.store import EXPLAINED
from relprop.errors import InputError
from relprop.results.relevance import Relevance
from relprop.text.batch import Batch, alike, arguments, collate, context, generates
from relprop.text.explain import inputs_of
from relprop.text.targets import Question, Rank, read_output
from relprop.text.tasks import Entries
from relprop.text.tokens import Tokens

DECODER, DECODER_IDS = "decoder", "decoder_input_ids"
"""The array with the relevance of what a decoder was given, and the network's argument for it."""
_LONGEST_ANSWER = 30
"""The most tokens of an answer that is looked for in a text, as in `explain_text`."""
_MOST = 1024
"""The longest rows that are taken without being asked for."""


@dataclass(frozen=True, eq=False)
class TextResult:
    """The explanation of a batch of texts for one target."""

    batch: Batch
    question: Any
    relevance: Relevance


@dataclass(frozen=True, eq=False)
class TextJob(SampleJob):
    """What is done with each text.

    Attributes:
        tokenizer: the network's tokenizer.
        width: how many tokens a row holds.
        decoder_text: what an encoder-decoder has written so far, the same for all texts.
    """

    tokenizer: Any = None
    width: int = 0
    decoder_text: str | None = None

    by_length = True

    def shape(self, item: Item) -> list[int]:
        """The shape of the inputs of the run: the length of a row."""
        return [self.width]

    def check(self, number: int, item: Item, shape: Sequence[int]) -> None:
        """Refuses a text before the network sees it.

        Raises:
            InputError: it is longer than a row, or it has no target.
        """
        if len(item.inputs) > self.width:
            raise InputError(
                f"the text has {len(item.inputs)} tokens, and the network reads {self.width}. max_length={self.width} cuts "
                "texts there."
            )
        self.asked.check(number, item, self.source.columns)

    def explained(self, items: Sequence[Item], numbers: Sequence[int]) -> list[Any]:
        """The explanations of some texts: for each batch that the network takes, one for each target."""
        texts: list[Tokens] = [item.inputs for item in items]
        top = [[Rank(k)] * len(items) for k in range(self.asked.top or 0)]
        rows = top or self.asked.for_batch(items, numbers, self.source.columns)
        return [
            self._explained(texts[here], [row[here] if isinstance(row, list) else row for row in rows])
            for here in alike(self.model, self.tokenizer, texts, len(texts))
        ]

    def _explained(self, texts: list[Tokens], rows: Sequence[Any]) -> list[TextResult]:
        """The explanations of one batch: one for each target."""
        batch = collate(self.model, self.tokenizer, texts)
        inputs, _ = inputs_of(self.model, self.tokenizer, batch, self.decoder_text)
        rest = dict(batch.rest)
        questions = [row if callable(row) else self._question(batch, row) for row in rows]
        if (
            "logits_to_keep" in arguments(self.model)[1]
            and generates(self.model)
            and bool(batch.mask[:, -1].all())
            and all(isinstance(one, Question) for one in questions)
        ):
            rest["logits_to_keep"] = 1  # only the last token's logits are needed
        found = attribute_each(
            self.model, inputs, questions, composite=self.composite, forward_kwargs=rest,
            layers=list(self.keep.layers) or None, ledger=self.ledger, select=lambda output: output,
        )  # fmt: skip
        return [TextResult(batch, question, one) for question, one in zip(questions, found, strict=True)]

    def _question(self, batch: Batch, row: Any) -> Question:
        targets = row if isinstance(row, list) else [row] * len(batch.texts)
        return Question(
            lambda output: read_output(output, self.model, self.tokenizer, batch, None, None, _LONGEST_ANSWER), targets
        )

    def composite_of(self, results: Sequence[Any]) -> str:
        """The name of the composite that acted."""
        return str(results[0][0].relevance.composite.name)

    def rows(self, results: Sequence[Any]) -> dict[str, np.ndarray]:
        """The rows of every array: relevance, ids and words of tokens, padded with zeros, and how many there are."""
        parts = [self._batch_rows(batch) for batch in results]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _batch_rows(self, results: Sequence[TextResult]) -> dict[str, np.ndarray]:
        """Those of one batch."""
        found = joined([self._text_rows(one) for one in results], self.asked.several, self.form)
        first = results[0]
        task = first.question.task if isinstance(first.question, Question) else None
        if isinstance(task, Entries):
            found |= top_outputs(task.rows)
        texts = first.batch.texts
        found["tokens.length"] = np.array([len(text) for text in texts], np.int32)
        for name in ("tokens.id", "tokens.word"):
            found[name] = np.zeros((len(texts), self.width), np.int32)
        for n, text in enumerate(texts):
            found["tokens.id"][n, : len(text)] = text.ids
            found["tokens.word"][n, : len(text)] = words_of(text)
        found["status"] = np.full(len(texts), EXPLAINED, np.uint8)
        return found

    def _text_rows(self, one: TextResult) -> dict[str, np.ndarray]:
        values = one.relevance.values[one.batch.named]
        layers = {
            path: self._aligned(part, one.batch) if isinstance(part, Tensor) else part
            for path, part in one.relevance.layers.items()
        }
        parts = self.keep.parts(self._aligned(values, one.batch), layers, tokens=True)
        if (given := one.relevance.values.get(DECODER_IDS)) is not None:
            parts[DECODER] = given
        choices = one.question.choices if isinstance(one.question, Question) else [None] * len(one.batch.texts)
        return {name: as_array(part) for name, part in parts.items()} | numbers_of(one.relevance, choices, self.ledger)

    def _aligned(self, values: Tensor, batch: Batch) -> Tensor:
        """Values of each token, from the first token on and without padding between. Those of a text stay as they are.

        Raises:
            InputError: they are of neither.
        """
        if values.ndim < 2 or values.shape[:2] != batch.ids.shape:
            if values.ndim > 2:
                raise InputError(
                    f"a layer of shape {tuple(values.shape)} has no axis of tokens after that of texts, so its rows would "
                    "differ in length: keep another one."
                )
            return values
        found = torch.zeros((len(values), self.width, *values.shape[2:]), dtype=values.dtype)
        for n, text in enumerate(batch.texts):
            found[n, : len(text)] = values[n, batch.real(n)].cpu()
        return found


def words_of(text: Tokens) -> np.ndarray:
    """The number of the word that each token belongs to; -1 for special tokens."""
    found = np.zeros(len(text), np.int32)
    for number, (first, stop) in enumerate(text.words):
        found[first:stop] = number
    found[np.array(text.special, bool)] = -1
    return found


def width_of(model: Any, tokenizer: Any, max_length: int | None) -> int:
    """How many tokens a row holds.

    Raises:
        InputError: the network reads fewer than are asked for, or so many that rows would be mostly padding.
    """
    most = context(model, tokenizer)
    if max_length is None:
        if most is None or most > _MOST:
            reads = "does not tell how many tokens it reads" if most is None else f"reads {most} tokens"
            raise InputError(
                f"every text takes a row of one length, and this network {reads}: say how long with max_length=, such as "
                "256. Longer texts are cut."
            )
        return most
    if most is not None and max_length > most:
        raise InputError(f"max_length is {max_length}, and the network reads {most} tokens.")
    return max_length

"""Puts texts of different lengths into one batch that fits the model."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from relprop.errors import InputError
from relprop.text.tokens import Choices, Tokens


@dataclass(frozen=True)
class Batch:
    """Padded ids, the mask that hides the padding, and the model's further arguments.

    Attributes:
        texts: the tokens of each text.
        ids: the padded ids, (N, T), or (1, C, T) for a text with C choices.
        mask: 1 at tokens and 0 at padding, in the same shape.
        rest: the model's further arguments, by name.
        named: the name of the model's argument for the ids.
        begin: the index of the first text among all that were given.
    """

    texts: list[Tokens]
    ids: Tensor
    mask: Tensor
    rest: dict[str, Any]
    named: str
    begin: int = 0

    def real(self, n: int) -> Tensor:
        """The positions of the tokens of text n, without padding."""
        return self.mask[n].flatten().nonzero().flatten()


def collate(model: Any, tokenizer: Any, texts: Sequence[Tokens | Choices], begin: int = 0) -> Batch:
    """Makes a batch, padded on the side that the tokenizer pads on.

    Raises:
        InputError: a text is longer than the model's context, an id is not in the model's vocabulary, or texts differ
            in length and the tokenizer has no padding token or the model takes no mask.
    """
    if isinstance(texts[0], Choices):
        return _with_choices(model, tokenizer, texts[0], begin)
    return _collate(model, tokenizer, [text for text in texts if isinstance(text, Tokens)], begin)


def _collate(model: Any, tokenizer: Any, texts: list[Tokens], begin: int) -> Batch:
    for text in texts:
        check_length(model, tokenizer, len(text))
        check_vocabulary(model, text)
    longest = max(map(len, texts))
    short = any(len(text) < longest for text in texts)
    pad = padding(model, tokenizer)
    if short and pad is None:
        raise InputError(
            "texts of different lengths need padding, and this tokenizer has no token for it: set tokenizer.pad_token = "
            "tokenizer.eos_token (a mask hides the padding from the model), or explain the texts one by one."
        )
    left = getattr(tokenizer, "padding_side", "right") == "left"
    device = device_of(model)

    def padded(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
        wide = [
            [fill] * (longest - len(row)) + [*row] if left else [*row] + [fill] * (longest - len(row)) for row in rows
        ]
        return torch.tensor(wide, device=device)

    ids, mask = padded([t.ids for t in texts], pad or 0), padded([[1] * len(t) for t in texts], 0)
    named, accepted = arguments(model)
    rest: dict[str, Any] = {}
    if "attention_mask" in accepted:
        rest["attention_mask"] = mask
    elif short:
        raise InputError(
            "the model takes no attention_mask, so padding would be read as text: explain texts of different lengths one by one."
        )
    for key in texts[0].extra:
        if key in accepted and all(key in t.extra for t in texts):
            rest[key] = padded([t.extra[key] for t in texts], 0)
    if left and short and "position_ids" in accepted and not _skips_padding(model):
        # positions count only tokens, not the padding before them
        rest["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
    if "use_cache" in accepted:
        rest["use_cache"] = False
    return Batch(texts, ids, mask, rest, named, begin)


def _with_choices(model: Any, tokenizer: Any, text: Choices, begin: int) -> Batch:
    """A batch of one text with its choices, one row each: (1, C, T)."""
    rows = collate(model, tokenizer, text.rows, begin)
    rest = {key: value[None] if isinstance(value, Tensor) else value for key, value in rows.rest.items()}
    return replace(rows, texts=[text.joined()], ids=rows.ids[None], mask=rows.mask[None], rest=rest)


def padding(model: Any, tokenizer: Any) -> int | None:
    """The id that pads short texts: the model's own, which its head or positions may look for, else the tokenizer's."""
    own = getattr(getattr(model, "config", None), "pad_token_id", None)
    table = embeddings(model)
    if isinstance(own, int) and own >= 0 and (table is None or own < table.shape[0]):
        return own
    return getattr(tokenizer, "pad_token_id", None)


def _skips_padding(model: Any) -> bool:
    """Whether the model's own positions skip padding, as RoBERTa's do: their table has a padding row."""
    words = embeddings(model)
    tables = [m for m in model.modules() if isinstance(m, nn.Embedding)] if isinstance(model, nn.Module) else []
    return any(m.padding_idx is not None and m.weight is not words for m in tables)


def arguments(model: Any) -> tuple[str, set[str]]:
    """The name of the model's argument for the ids, and the names of all its arguments."""
    forward = getattr(model, "forward", None) if isinstance(model, nn.Module) else model
    names = list(inspect.signature(forward or model).parameters)
    if not names:
        raise InputError("the model takes no arguments: it must be callable on ids of tokens.")
    return "input_ids" if "input_ids" in names else names[0], set(names)


def decodes(model: Any) -> bool:
    """Whether the model has an encoder, which reads a text, and a decoder, which writes another."""
    config = getattr(model, "config", None)
    return bool(getattr(config, "is_encoder_decoder", False)) and "decoder_input_ids" in arguments(model)[1]


def generates(model: Any) -> bool:
    """Whether the model predicts the next token. True if the model does not tell."""
    tells = getattr(model, "can_generate", None)
    return bool(tells()) if callable(tells) else True


def end_sign(model: Any) -> int | None:
    """The id whose last position an encoder-decoder model's head may read; None for other models and generators."""
    found = getattr(getattr(model, "config", None), "eos_token_id", None)
    return found if isinstance(found, int) and decodes(model) and not generates(model) else None


def alike(model: Any, tokenizer: Any, texts: Sequence[Tokens | Choices], size: int) -> Iterator[slice]:
    """Slices of the texts that the model takes as one batch, each of at most `size` texts.

    A text with choices is a batch of its own. So is each text if the model has no padding id and is not a generator:
    its head may look for the last token before the padding. If the head may read the end token, all texts of a batch
    hold it equally often.
    """
    sign, config = end_sign(model), getattr(model, "config", None)
    if config is not None and getattr(config, "pad_token_id", 0) is None and not generates(model):
        size = 1
    filled = sign is not None and sign == padding(model, tokenizer)
    kinds = [
        object() if isinstance(t, Choices) else None if sign is None else (t.ids.count(sign), len(t) if filled else 0)
        for t in texts
    ]
    start = 0
    while start < len(texts):
        stop = start + 1
        while stop < len(texts) and stop - start < size and kinds[stop] == kinds[start]:
            stop += 1
        yield slice(start, stop)
        start = stop


@torch.no_grad()
def answers_alone(model: Any, batch: Batch) -> bool:
    """Whether an encoder-decoder model needs only the text: its head classifies or marks spans, and it derives the
    decoder's input from the text. One text is tried.

    Raises:
        InputError: the model fails, and may look for an end token that the text does not have.
    """
    if not decodes(model) or generates(model):
        return False
    sign, text = end_sign(model), batch.texts[0]
    given = {batch.named: batch.ids[:1], **batch.rest}
    given = {key: value[:1] if isinstance(value, Tensor) else value for key, value in given.items()}
    try:
        output = model(**given)
    except Exception as error:
        if sign is None or sign in text.ids:
            return False  # such as a model without a head, which must be given the decoder's input
        raise InputError(
            f"text {batch.begin} does not hold the id {sign}, and the model, an encoder-decoder without a generator, raises "
            f"{type(error).__name__}: {error} Its head may read the last place of config.eos_token_id={sign}: let the "
            "tokenizer end texts with that token, or write it at the end of the text."
        ) from error
    return any(isinstance(field_of(output, name), Tensor) for name in ("logits", "start_logits"))


def field_of(output: Any, name: str) -> Any:
    """The field of a model's output with that name; None if it has none."""
    return output.get(name) if isinstance(output, dict) else getattr(output, name, None)


def decoder_start(model: Any) -> int:
    """The id of an encoder-decoder model's start token."""
    config = getattr(model, "config", None)
    told = [getattr(config, name, None) for name in ("decoder_start_token_id", "bos_token_id", "pad_token_id")]
    return next((int(i) for i in told if i is not None), 0)


def device_of(model: Any) -> torch.device:
    """The device for the ids: that of the embedding, else of the first parameter."""
    table = embeddings(model)
    if table is not None:
        return table.device
    first = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return torch.device("cpu") if first is None else first.device


def embeddings(model: Any) -> Tensor | None:
    """The weight of the model's token embedding, or None if the model does not tell."""
    try:
        module = model.get_input_embeddings()
    except (AttributeError, NotImplementedError, TypeError):
        return None
    weight = getattr(module, "weight", None)
    return weight if isinstance(weight, Tensor) and weight.ndim == 2 else None


def context(model: Any, tokenizer: Any) -> int | None:
    """How many tokens the model can read; None if neither it nor its tokenizer tells."""
    config = getattr(model, "config", None)
    told = [getattr(config, name, None) for name in ("max_position_embeddings", "n_positions", "max_seq_len")]
    told.append(getattr(tokenizer, "model_max_length", None))  # 1e30 stands for "unknown"
    known = [int(n) for n in told if isinstance(n, (int, float)) and 0 < n < 10**9]
    return min(known) if known else None


def check_length(model: Any, tokenizer: Any, length: int) -> None:
    """Refuses a text that is longer than the model's context."""
    most = context(model, tokenizer)
    if most is not None and length > most:
        raise InputError(
            f"the text has {length} tokens, the model reads {most}: shorten it, or pass max_length={most} to cut it there."
        )


def check_vocabulary(model: Any, text: Tokens) -> None:
    """Refuses ids for which the model has no embedding."""
    table = embeddings(model)
    if table is not None and max(text.ids) >= table.shape[0]:
        at = max(range(len(text)), key=lambda k: text.ids[k])
        raise InputError(
            f"the tokenizer gives {text.names[at]!r} the id {text.ids[at]}, but the model has {table.shape[0]} embeddings: "
            "tokenizer and model do not belong together, or the model needs model.resize_token_embeddings(len(tokenizer))."
        )

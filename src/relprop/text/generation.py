"""`relprop.explain_generation`: the relevance of earlier tokens for each generated token, from one forward pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from relprop.attribution import attribute, attribute_each
from relprop.attribution.checks import check_callable
from relprop.composites import Composite
from relprop.engine.undo import restoring
from relprop.errors import InputError
from relprop.results.generations import GenerationRelevance
from relprop.results.ledger import Ledger
from relprop.signatures import check_options, parameters, public
from relprop.text.batch import arguments, check_length, check_vocabulary, decoder_start, decodes, device_of
from relprop.text.sources import Answered, by_sources, check_sources, spans, verified
from relprop.text.tokens import Tokens, tokenize, tokens_of_ids

AT_ONCE = 8
"""Generated tokens per backward pass, which merges their matrix products. More cost memory and gain nothing."""


_OWN = {
    "inputs",
    "target",
    "forward_args",
    "forward_kwargs",
    "select",
    "layers",
    "layers_at",
    "labels",
    "batch_size",
    "progress",
    "groups",
}
"""The arguments of `attribute` that `explain_generation` sets itself or does not use."""


@restoring
@public("relprop.explain_generation")
def explain_generation(
    model: Any,
    tokenizer: Any,
    prompt: Any,
    *,
    max_new_tokens: int = 20,
    continuation: str | None = None,
    composite: Composite | str = "auto",
    template: dict[str, Any] | None = None,
    generate: dict[str, Any] | None = None,
    sources: Sequence[str] | Mapping[str, str] | None = None,
    verify: int = 0,
    **options: Any,
) -> GenerationRelevance:
    """Lets the model continue a text, and explains every token that it generates.

    One forward pass reads the prompt and the generated tokens. One backward pass then explains up to eight of these.

    Args:
        model: a language model that reads from left to right, or an encoder-decoder model, such as a translator.
        tokenizer: its tokenizer.
        prompt: a str (for an encoder-decoder model, the source text), or a chat, as a list of
            `{"role": ..., "content": ...}`.
        max_new_tokens: the most tokens to generate. The model stops earlier at its end-of-text token.
        continuation: explain this text after the prompt, instead of generated text.
        composite: the rules, or the name of a composite.
        template: further arguments of the tokenizer's chat template.
        generate: further arguments of the model's own `generate`, such as `do_sample`. Without them it is greedy.
        sources: texts that the prompt holds, such as documents, in a list or by name. `sources` of the result then has the
            relevance of each source for each sentence of the answer.
        verify: how many of the strongest sources to leave out of the prompt, one at a time, to see how far the score and
            the log-probability of each sentence truly fall. Each takes one forward pass.
        **options: further arguments of `relprop.attribute`, such as `checkpoint` and `strict`.

    Returns:
        The matrix of relevance, generated tokens by all tokens. The prompt of an encoder-decoder model is its source
        text and the decoder's start token.

    Raises:
        InputError: the prompt is empty, the text is too long, nothing was generated, an argument is not valid, or the
            model does not read from left to right.
        RelpropError: as `relprop.attribute`.
    """
    check_options(
        options,
        [*parameters(explain_generation), *(n for n in parameters(attribute) if n not in _OWN)],
        _of_generate(model, options),
    )
    check_callable(model, tokenizer)
    _check(prompt, continuation, max_new_tokens, generate, template)
    named = check_sources(prompt, sources, verify)
    two = decodes(model)
    text = _read(tokenizer, prompt, template, two)
    places = spans(text.pieces, named)
    check_vocabulary(model, text)
    check_length(model, tokenizer, len(text) + (not two))
    ids = torch.tensor([text.ids], device=device_of(model))
    further = dict(generate or {})
    begun = further.get("decoder_input_ids")
    start = [] if not two else [decoder_start(model)] if begun is None else [int(i) for i in begun.flatten()]
    if continuation is not None:
        written = {"text_target": continuation} if two else {"text": continuation}
        new = [int(i) for i in tokenizer(**written, add_special_tokens=False)["input_ids"]]
    else:
        new = _written(model, tokenizer, ids, len(start) or ids.shape[1], max_new_tokens, further)
    if not new:
        raise InputError("nothing was generated: the model ended the text at once, or continuation= is empty.")
    begin, after = tokens_of_ids(tokenizer, start), tokens_of_ids(tokenizer, new)
    check_length(model, tokenizer, (len(start) or len(text)) + len(new) - 1)
    relevance, answers = matrix(model, ids, new, composite, options, start)
    whole = _answered(answers[0].output, new)
    pieces, scores = _pieces(tokenizer, start or text.ids, new), torch.cat([a.score for a in answers]).cpu()
    found = None
    if named:
        prompted = len(text) + len(start)
        found = by_sources(list(named), places, pieces, relevance, scores, prompted)

        def again(other: Any) -> Answered:
            read = torch.tensor([_read(tokenizer, other, template, two).ids], device=ids.device)
            given, rest = _given(model, read, new, start)
            with torch.no_grad():
                return _answered(model(**given, **rest), new)

        found = replace(found, verified=verified(found, verify, named, prompt, again, whole))
    return GenerationRelevance(
        prompt=text.pieces + begin.pieces,
        generated=pieces,
        relevance=relevance,
        probabilities=whole[1].exp(),
        scores=scores,
        residual=torch.cat([a.residual for a in answers]).cpu(),
        composite=answers[0].composite,
        rules=answers[0].rules,
        unknown=answers[0].unknown,
        model=answers[0].model,
        notices=list(dict.fromkeys(notice for a in answers for notice in a.notices)),
        ledger=Ledger.joined([a.ledger for a in answers]),
        special=text.special + begin.special + after.special,
        names=text.names + begin.names + after.names,
        sources=found,
    )


def _read(tokenizer: Any, prompt: Any, template: Any, two: bool) -> Tokens:
    """The tokens of a prompt; those of a text to be continued have no end token."""
    text = tokenize(tokenizer, prompt, **(template or {}))
    while not two and text.special[-1] and text.ids[-1] == getattr(tokenizer, "eos_token_id", None) and len(text) > 1:
        text = _without_end(text)  # an end token of the tokenizer: the model should continue the text
    return text


def _answered(output: Any, new: list[int]) -> Answered:
    """The logit and the log-probability of each generated token, on the CPU."""
    rows = _logits(output)[0, -len(new) :].detach().float().cpu()
    at = torch.arange(len(new)), torch.tensor(new)
    return rows[at], rows.log_softmax(-1)[at]


def _check(prompt: Any, continuation: Any, max_new_tokens: Any, generate: Any, template: Any) -> None:
    """Refuses invalid arguments, before anything is computed."""
    for name, value in (("generate", generate), ("template", template)):
        if value is not None and not isinstance(value, dict):
            raise InputError(f"{name} must be a dict of arguments; got {value!r}.")
    if generate is not None and "max_new_tokens" in generate:
        raise InputError("max_new_tokens is an argument of explain_generation itself: write it outside of generate.")
    if continuation is not None and not isinstance(continuation, str):
        raise InputError(f"continuation must be a str; got {continuation!r}.")
    if not isinstance(max_new_tokens, int) or isinstance(max_new_tokens, bool) or max_new_tokens < 1:
        raise InputError(f"max_new_tokens must be a positive int; got {max_new_tokens!r}.")
    if isinstance(prompt, tuple):
        raise InputError("explain_generation takes one prompt, a str or a chat; got a tuple.")


def _of_generate(model: Any, options: Iterable[str]) -> dict[str, str]:
    """Hints for arguments that belong to the model's own `generate`."""
    config = getattr(model, "generation_config", None)
    said = "It is one of the model's own generate: write generate={{{0!r}: ...}}."
    return {name: said.format(name) for name in options if hasattr(config, name)}


def matrix(
    model: Any, ids: Tensor, new: list[int], composite: Any, options: dict[str, Any], start: Sequence[int] = ()
) -> tuple[Tensor, list[Any]]:
    """Relevance of every token for every generated token, (G, P + G), and the results that it is made of.

    If `start` is given, an encoder reads the ids and a decoder continues after `start`. The two form the prompt.
    """
    count = len(new)
    inputs, rest = _given(model, ids, new, start)

    def asked(g: int) -> Any:
        def target(output: Any) -> Tensor:
            return _logits(output)[:, g - count, new[g]]

        return target

    answers = attribute_each(
        model, inputs, [asked(g) for g in range(count)], composite=composite, forward_kwargs=rest,
        select=lambda output: output, targets_at_once=AT_ONCE, **options,
    )  # fmt: skip
    rows = torch.cat([torch.cat([answer.values[name] for name in inputs], 1) for answer in answers]).cpu()
    prompt = ids.shape[1] + len(start)
    later = torch.arange(rows.shape[1]) >= torch.arange(prompt, prompt + count)[:, None]
    if bool((rows[later] != 0).any()):
        raise InputError(
            "the model reads the whole text at once: tokens after the one explained have relevance, so it does not write "
            "from left to right. Use explain_text with a mask token."
        )
    return torch.cat([rows, rows.new_zeros(count, 1)], 1), answers


def _given(model: Any, ids: Tensor, new: list[int], start: Sequence[int]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The ids that the model reads, and further arguments."""
    named, accepted = arguments(model)
    written = torch.tensor([[*start, *new[:-1]]], device=ids.device, dtype=ids.dtype)
    inputs = {named: ids, "decoder_input_ids": written} if start else {named: torch.cat([ids, written], 1)}
    rest: dict[str, Any] = {"use_cache": False} if "use_cache" in accepted else {}
    if "logits_to_keep" in accepted:
        rest["logits_to_keep"] = len(new)
    return inputs, rest


@torch.no_grad()
def _written(model: Any, tokenizer: Any, ids: Tensor, before: int, count: int, options: dict[str, Any]) -> list[int]:
    """The tokens that the model writes after the first `before`, by its own `generate`, or greedily if it has none."""
    end = getattr(tokenizer, "eos_token_id", None)
    if hasattr(model, "generate"):
        chosen = {"do_sample": False, "num_beams": 1, "attention_mask": torch.ones_like(ids), **options}
        if "pad_token_id" not in chosen and getattr(model.generation_config, "pad_token_id", None) is None:
            chosen["pad_token_id"] = end  # it warns otherwise
        try:
            written = model.generate(ids, max_new_tokens=count, **chosen)
        except (TypeError, ValueError) as error:
            if not options:
                raise
            raise InputError(f"the model's own generate does not take generate={options}: {error}") from error
        return [int(i) for i in getattr(written, "sequences", written)[0, before:]]
    new: list[int] = []
    while len(new) < count and (not new or new[-1] != end):
        new.append(int(_logits(model(ids))[0, -1].argmax()))
        ids = torch.cat([ids, ids.new_tensor([[new[-1]]])], 1)
    return new


def _logits(output: Any) -> Tensor:
    """The logits of the vocabulary at each token, (N, T, V)."""
    logits = output if isinstance(output, Tensor) else output.get("logits") if isinstance(output, dict) else None
    if not isinstance(logits, Tensor) or logits.ndim != 3:
        said = tuple(logits.shape) if isinstance(logits, Tensor) else f"a {type(output).__name__} without logits"
        raise InputError(
            f"explain_generation is for models that answer with the vocabulary at each token, (N, T, V); this one gave {said}. "
            "Use explain_text."
        )
    return logits


def _pieces(tokenizer: Any, before: list[int], new: list[int]) -> list[str]:
    """The text of each generated token, decoded in context. A letter split over tokens belongs to the last of them."""
    pieces, said, waiting = [], str(tokenizer.decode(before)), 0
    for count in range(1, len(new) + 1):
        now = str(tokenizer.decode(before + new[:count]))
        cut = now.endswith("\ufffd") and waiting < 3 and count < len(new)  # no letter has more than four bytes
        pieces.append("" if cut else now[len(said) :])
        said, waiting = (said, waiting + 1) if cut else (now, 0)
    return pieces


def _without_end(text: Any) -> Any:
    size = len(text) - 1
    return replace(
        text, ids=text.ids[:size], names=text.names[:size], pieces=text.pieces[:size], special=text.special[:size],
        second=text.second[:size], words=[w for w in text.words if w[1] <= size],
        extra={key: value[:size] for key, value in text.extra.items()},
    )  # fmt: skip

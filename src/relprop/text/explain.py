"""`relprop.explain_text`: from a model, its tokenizer and a text to the relevance of tokens and words."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from relprop.attribution import Relevance, attribute, attribute_each
from relprop.attribution.checks import check_callable, check_flags, check_names
from relprop.attribution.conditions import Condition
from relprop.composites import Composite
from relprop.engine.undo import restoring
from relprop.errors import InputError, TargetError
from relprop.results.contrast import Contrast
from relprop.results.many import together
from relprop.results.texts import ROTARY, TextRelevance
from relprop.signatures import check_options, parameters, public
from relprop.text import positions as sinks
from relprop.text.batch import Batch, alike, answers_alone, arguments, collate, decoder_start, decodes, generates
from relprop.text.parts import Parts, find_parts
from relprop.text.targets import Question, Rank, read_output
from relprop.text.tokens import Choices, Tokens, is_chat, listed, read_texts, tokens_of_ids

_OWN = {"inputs", "forward_args", "forward_kwargs", "select", "groups"}
"""The arguments of `attribute` that `explain_text` sets itself or does not use."""
_ELSEWHERE = {
    "max_new_tokens": "relprop.explain_generation(model, tokenizer, text, max_new_tokens=20) lets a model write.",
    "targets": "Several targets are a list, target=[...].",
    "groups": "The result adds up spans: R.grouped({'question': 'Who wrote it?'}), or for many texts R.to_pandas(groups=...).",
}


@restoring
@public("relprop.explain_text")
def explain_text(
    model: Any,
    tokenizer: Any,
    text: Any,
    target: Any = None,
    *,
    top: int | None = None,
    composite: Composite | str = "auto",
    labels: Sequence[str] | None = None,
    mask: int | None = None,
    decoder_text: str | None = None,
    positions: bool = False,
    parts: bool | Parts = False,
    layers: Any = None,
    max_length: int | None = None,
    longest_answer: int = 30,
    template: dict[str, Any] | None = None,
    batch_size: int = 16,
    **options: Any,
) -> Any:
    """Explains a model's answer to a text: a class, its next token, a masked token, or the span of an answer.

    The model's output decides what is explained. Logits (N, C) are classes. Logits (N, T, V) as wide as the vocabulary
    are the token at the mask if the text has one, else the next token. Any other logits (N, T, C) are the class of a
    token. Start and end logits are the span of an answer.

    Args:
        model: a model of the transformers library, or any other that takes token ids. It is not changed.
        tokenizer: its tokenizer, slow or fast.
        text: one of these, or a list of them; an array or a column of texts is such a list:

            - a str;
            - a tuple of two texts (question and context, premise and hypothesis);
            - a tuple of a question and a list of answers, for models that choose among answers. The relevance is that
              of all rows, one after the other;
            - a chat, as a list of `{"role": ..., "content": ...}`.
        target: what to explain. A list has one target per text for a list of texts, and several targets for one text,
            which share one forward pass. A target is:

            - None for the model's likeliest answer;
            - a label, an index, or a token id;
            - a token as a str: with or without a space before it, whichever scores higher, unless you write the space;
            - the answer to a question, as a str (its highest-scoring place in the text) or (first token, last token);
            - for the class of a token, (token, class). The token is a number (negative: from the end) or a word, which
              stands for its first token. The class is a label, an index, or None for the likeliest;
            - a `Contrast` of two targets;
            - a callable, output -> (N,).
        top: explain this many of the likeliest targets instead.
        composite: the rules, or the name of a composite.
        labels: names of the classes, if the model has none.
        mask: which mask token to explain, from 0, if a text has several.
        decoder_text: what an encoder-decoder model has written so far. Its tokens get relevance too.
        positions: whether position encodings keep the relevance that ends in them, to be reported.
        parts: whether to report relevance per block, attention head and MLP neuron; or the parts, see `find_parts`.
        layers: module paths whose relevance to report; not together with parts.
        max_length: cut texts to this many tokens.
        longest_answer: the most tokens that an answer may have when the likeliest is looked for.
        template: further arguments of the tokenizer's chat template.
        batch_size: texts per forward pass; with `positions`, always 1.
        **options: further arguments of `relprop.attribute`, such as `checkpoint`, `strict`, `seed`, `splices`, and `through` with
            one condition for all texts.

    Returns:
        A `TextRelevance`; for several targets or `top`, for a list of texts, or for both, a `TextResults`: a list of such
        entries that is one result as well, with `save`, `show`, `to_pandas` and `summary`.

    Raises:
        InputError: the text is empty or too long, an argument is not valid, or the tokenizer cannot pad or does not
            belong to the model.
        TargetError: the target does not name one score, is several tokens, or the text has no mask.
        RelpropError: as `relprop.attribute`.
    """
    check_options(
        options, [*parameters(explain_text), *(n for n in parameters(attribute) if n not in _OWN)], _ELSEWHERE
    )
    check_callable(model, tokenizer)
    _check(mask, decoder_text, parts, max_length, longest_answer, template, batch_size)
    check_flags(positions=positions)
    check_names(labels)
    if isinstance(against := options.get("against"), (str, int)):
        raise TargetError(
            f"what speaks for one answer rather than {against!r} is target=relprop.Contrast(answer, {against!r})."
        )
    text, target = listed(text, "text"), listed(target, "target")
    alone = not isinstance(text, list) or is_chat(text)
    texts = [text] if alone else list(text)
    if not texts:
        raise InputError("the list of texts is empty.")
    wanted, many = _targets(target, top, len(texts), alone)
    if parts is not False and layers is not None:
        raise InputError("parts= asks for layers of its own: call once with parts= and once with layers=.")
    found = (find_parts(model) if parts is True else parts) if parts is not False else None
    if isinstance(found, Parts):
        layers = found.paths
        options["layers_at"] = "input"
    read = read_texts(tokenizer, texts, alone, max_length=max_length, **(template or {}))
    if positions:
        batch_size = 1  # relevance in an encoding that texts share cannot be split among them
    results: list[list[TextRelevance]] = []
    for here in alike(model, tokenizer, read, batch_size):
        batch = collate(model, tokenizer, read[here], here.start)
        first = read[here.start]
        names = first.answers if labels is None and isinstance(first, Choices) else labels
        questions = [
            row[0] if callable(row[0]) else Question(
                lambda output, batch=batch, names=names: read_output(output, model, tokenizer, batch, names, mask, longest_answer),
                row[here],
            )
            for row in wanted
        ]  # fmt: skip
        inputs, written = inputs_of(model, tokenizer, batch, decoder_text)
        answers = _attribute(model, batch, inputs, questions, composite, positions, layers, options)
        for n in range(len(batch.texts)):
            results.append([
                _result(answer, question, batch, n, inputs, written, found or None)
                for answer, question in zip(answers, questions, strict=True)
            ])  # fmt: skip
    shaped: list[Any] = results if many else [row[0] for row in results]
    made = together(shaped)
    return made[0] if alone else made


def _check(
    mask: Any, decoder_text: Any, parts: Any, max_length: Any, longest_answer: Any, template: Any, batch_size: Any
) -> None:
    """Refuses invalid arguments, before anything is computed."""
    for name, value in (("max_length", max_length), ("longest_answer", longest_answer), ("batch_size", batch_size)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise InputError(f"{name} must be a positive int; got {value!r}.")
    if mask is not None and (not isinstance(mask, int) or isinstance(mask, bool) or mask < 0):
        raise TargetError(f"mask must be the number of a mask token of the text, from 0; got {mask!r}.")
    if not isinstance(parts, (bool, Parts)):
        raise InputError(f"parts must be True, False, or what relprop.text.find_parts found; got {parts!r}.")
    if decoder_text is not None and not isinstance(decoder_text, str):
        raise InputError(f"decoder_text must be a str; got {decoder_text!r}.")
    if template is not None and not isinstance(template, dict):
        raise InputError(f"template must be a dict of arguments of the chat template; got {template!r}.")


def _targets(target: Any, top: int | None, count: int, alone: bool) -> tuple[list[list[Any]], bool]:
    """Targets as a list of rows, each with one target per text, and whether texts have several."""
    if top is not None:
        if target is not None:
            raise TargetError("pass target= or top=, not both.")
        if not isinstance(top, int) or isinstance(top, bool) or top < 1:
            raise TargetError(f"top must be a positive int; got {top!r}.")
        return [[Rank(k)] * count for k in range(top)], True
    if isinstance(target, Tensor) and target.ndim:
        raise TargetError(f"target is a tensor of shape {tuple(target.shape)}: several are a list, target.tolist().")
    if not isinstance(target, list):
        return [[target] * count], False
    if not target:
        raise TargetError("the list of targets is empty.")
    if alone:
        return [[one] for one in target], True
    if len(target) != count:
        raise TargetError(f"{len(target)} targets for {count} texts: give one per text, or a single one.")
    if any(callable(one) for one in target):
        raise TargetError("a callable target is for all texts: pass it alone, not in a list.")
    return [target], False


def inputs_of(
    model: Any, tokenizer: Any, batch: Batch, decoder_text: str | None
) -> tuple[dict[str, Tensor], Tokens | None]:
    """The inputs that get relevance, and what an encoder-decoder model has written so far."""
    inputs = {batch.named: batch.ids}
    if not decodes(model):
        if decoder_text is not None:
            raise InputError("decoder_text is for encoder-decoder models; this one has no decoder of its own.")
        return inputs, None
    if answers_alone(model, batch):
        if decoder_text is not None:
            raise InputError(
                "decoder_text is for models that write; the decoder of this one reads what the model makes of the text "
                "itself. Leave it out."
            )
        return inputs, None
    ids = [decoder_start(model)]
    if decoder_text:
        ids += [int(i) for i in tokenizer(text_target=decoder_text, add_special_tokens=False)["input_ids"]]
    inputs["decoder_input_ids"] = torch.tensor([ids] * len(batch.texts), device=batch.ids.device)
    return inputs, tokens_of_ids(tokenizer, ids)


def _attribute(
    model: Any, batch: Batch, inputs: dict[str, Tensor], questions: list[Any], composite: Any, positions: bool, layers: Any,
    options: dict[str, Any],
) -> list[Relevance]:  # fmt: skip
    rest = dict(batch.rest)
    accepted = arguments(model)[1]
    if "logits_to_keep" in accepted and generates(model) and bool(batch.mask[:, -1].all()) and all(
        isinstance(q, Question) for q in questions
    ):  # fmt: skip
        rest["logits_to_keep"] = 1  # only the last token's logits are needed
    context: Any = nullcontext()
    turning = sinks.rotary(model) if positions else {}
    if turning:
        context = sinks.sinks(model, turning)
        inputs = {**inputs, sinks.NAME: sinks.ones(model, batch.ids)}
    if (through := options.get("through")) is not None:
        if not isinstance(through, Condition):
            raise InputError(
                f"explain_text takes one condition, through=relprop.units(...), for all texts; got {through!r}."
            )
        options = {**options, "through": [through] * len(questions)}
    given: Any = inputs
    if not isinstance(model, nn.Module) and len(inputs) == 1 and batch.named not in accepted:
        given = batch.ids
    try:
        with context:
            answers = attribute_each(
                model, given, questions, composite=composite, layers=layers, forward_kwargs=rest, positions=positions,
                select=lambda output: output, **options,
            )  # fmt: skip
    except InputError as error:
        if error.__cause__ is None or generates(model) or batch.ids.ndim > 2:
            raise
        raise InputError(
            f"{error.message} If the model chooses among answers, write text=(question, [answer, answer])."
        ) from error.__cause__
    if positions and not turning and not answers[0].positions:
        raise InputError(
            "positions=True finds no position encodings: none is looked up, added, or rotates (a module with inv_freq)."
        )
    said = [] if through is None else [f"Only relevance {through}; what goes around is left out."]
    return [replace(answer, notices=[*said, *answer.notices]) for answer in answers]


def _result(
    answer: Relevance, question: Any, batch: Batch, n: int, inputs: dict[str, Tensor], written: Tokens | None,
    parts: Parts | None,
) -> TextRelevance:  # fmt: skip
    text, real = batch.texts[n], batch.real(n)
    target, index, probability, predictions = _named(question, n)
    values = answer.values if isinstance(answer.values, dict) else {batch.named: answer.values}

    def row(name: str) -> Tensor:
        return values[name][n].flatten().cpu()

    places = {name: _first(value).cpu() for name, value in answer.positions.items()}
    score = answer.score[n].cpu()
    kept = float(answer.residual[n]) - sum(float(value.sum()) for value in places.values())
    if sinks.NAME in values:
        places[ROTARY] = row(sinks.NAME)[real.cpu()]
    ends: dict[str, Any] = {
        "target": target, "index": index, "probability": probability, "score": score,
        "residual": torch.tensor(kept, dtype=score.dtype), "composite": answer.composite, "rules": answer.rules, "unknown": answer.unknown,
        "model": answer.model,
    }  # fmt: skip
    decoder = None
    if written is not None:
        decoder = TextRelevance(
            tokens=written.names, pieces=written.pieces, special=written.special, relevance=row("decoder_input_ids"),
            spans=written.words, **ends,
        )  # fmt: skip
    padded = batch.ids.shape[1]

    def cut(value: Any) -> Any:
        if isinstance(value, list):
            return [cut(v) for v in value]
        if not isinstance(value, Tensor) or value.ndim == 0 or value.shape[0] != len(batch.texts):
            return value
        mine = value[n].cpu()
        return mine[real.cpu()] if mine.ndim and mine.shape[0] == padded else mine

    if parts is None:
        ends["layers"] = {name: cut(value) for name, value in answer.layers.items()}
    else:
        heads = parts.of_heads(answer.layers, len(batch.texts))
        ends |= {
            "blocks": parts.of_blocks(answer.layers, len(batch.texts))[n][:, real].cpu(),
            "heads": None if heads is None else heads[n][..., real].cpu(),
            "neurons": [r[n][real].cpu() for r in parts.of_neurons(answer.layers, len(batch.texts))],
        }
    return TextRelevance(
        tokens=text.names, pieces=text.pieces, special=text.special, relevance=row(batch.named)[real.cpu()],
        spans=text.words, predictions=predictions, positions=places, decoder=decoder, ledger=answer.ledger.sample(slice(n, n + 1)),
        notices=list(answer.notices),
        **ends,
    )  # fmt: skip


def _first(value: Tensor) -> Tensor:
    """The value without its axis of texts, if that has length 1."""
    return value[0] if value.ndim > 1 and value.shape[0] == 1 else value


def _named(question: Any, n: int) -> tuple[str, Any, float | None, list[tuple[str, float | None]]]:
    """The explained target's name, index and probability, and the model's likeliest answers."""
    if not isinstance(question, Question) or question.task is None:
        return getattr(question, "__name__", "callable"), None, None, []
    task, choice = question.task, question.choices[n]
    first = choice
    while isinstance(first, Contrast):
        first = first.positive
    predictions = [(task.name(c, n), task.probability(c, n)) for c in task.rivals(first, n, 5)]
    probability = None if isinstance(choice, Contrast) else task.probability(choice, n)
    return _called(task, choice, n), choice, probability, predictions


def _called(task: Any, choice: Any, n: int) -> str:
    if isinstance(choice, Contrast):
        return f"{_called(task, choice.positive, n).strip()} rather than {_called(task, choice.negative, n).strip()}"
    return str(task.name(choice, n))

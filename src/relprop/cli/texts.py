"""Texts on the command line: reads them from arguments and files, and explains them."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import relprop
from relprop import Contrast
from relprop.cli.explaining import ExplainedInput, find_class
from relprop.cli.trying import Tried
from relprop.errors import InputError, TargetError
from relprop.loading.network import Loaded
from relprop.loading.samples import SUFFIXES, check_file, piped, text_of
from relprop.rendering.visible import quoted, visible
from relprop.text import TextRelevance
from relprop.text.batch import answers_alone, collate, decoder_start, decodes
from relprop.text.tokens import tokenize

TEXTS = (".txt", ".md")
# The most letters in the name of a text that is named after itself.
_NAME = 60


@dataclass(frozen=True)
class TextSample:
    """One text.

    Attributes:
        name: its name, safe to print.
        stem: the start of the names of its files.
        text: the text, or the pair of it and the second text.
    """

    name: str
    stem: str
    text: str | tuple[str, str]


@dataclass(frozen=True)
class Wish:
    """What to explain of each text.

    Attributes:
        targets: classes, tokens or answers; empty for the likeliest.
        against: the target to set against the first one.
        composites: names of composites.
        generate: how many tokens to generate and explain, instead of targets; 0 for none.
        max_length: cut texts to this many tokens.
        strict: whether unknown operations are errors.
        batch_size: texts per forward pass.
        chat: whether a text is a message, to be put into the tokenizer's chat template.
    """

    targets: Sequence[str] = ()
    against: str | None = None
    composites: Sequence[str] = ("auto",)
    generate: int = 0
    max_length: int | None = None
    strict: bool = True
    batch_size: int = 1
    chat: bool = False


def read(
    arguments: Sequence[str], tried: Tried | None = None, *, lines: bool = False, second: str | None = None
) -> list[TextSample]:
    """The texts of arguments. A file, or `-` for piped input, is one text or one per line; others are texts themselves.

    Args:
        arguments: the arguments as written. A folder stands for the text files in it.
        tried: collects the files that are too large, empty or not text; None makes them errors.
        lines: whether each line of a file is a text.
        second: the second text of each pair.

    Raises:
        InputError: a file is missing, or an argument is empty.
    """
    tried = tried or Tried(())
    found: list[TextSample] = []
    for given in arguments:
        if given == "-":
            found += _of_file("stdin", "stdin", piped(sys.stdin), lines)
        elif _is(given, Path.is_dir):
            inside = sorted(p for p in Path(given).iterdir() if p.suffix.lower() in TEXTS)
            if not inside:
                raise InputError(f"{given!r} holds no text ({', '.join(TEXTS)}).")
            for path in inside:
                with tried.each(visible(path.name)):
                    found += _file(path, lines)
        elif _names_a_file(given):
            check_file(Path(given))
            with tried.each(visible(Path(given).name)):
                found += _file(Path(given), lines)
        elif not given.strip():
            raise InputError("the text is empty: write it between quotes, or name a .txt file.")
        else:
            short = given if len(given) <= _NAME else given[: _NAME - 1] + "…"
            found.append(TextSample(visible(short), given[:_NAME], given))
    return found if second is None else [TextSample(s.name, s.stem, (str(s.text), second)) for s in found]


def explain(loaded: Loaded, samples: Sequence[TextSample], wish: Wish, tried: Tried) -> Iterable[ExplainedInput]:
    """Yields the results of each text in order. `tried` collects the texts that cannot be explained."""
    if wish.generate:
        if wish.targets or wish.against is not None:
            raise InputError("--generate explains what the model writes: leave out --target and --against.")
        if loaded.classes:
            raise InputError(f"--generate is for language models; {loaded.name} answers with classes.")
    targets = targets_of(loaded, wish)

    def of_some(chunk: Sequence[TextSample]) -> list[ExplainedInput]:
        results: list[list[Any]] = [[] for _ in chunk]
        asked = []
        for composite in dict.fromkeys(wish.composites):
            if wish.generate:
                for sample, mine in zip(chunk, results, strict=True):
                    mine.append(_generation(loaded, sample, composite, wish))
                asked.append(composite)
                continue
            for target in targets:
                found = relprop.explain_text(
                    loaded.model, loaded.tokenizer, [_asked(sample, wish) for sample in chunk], target, composite=composite,
                    labels=loaded.labels, max_length=wish.max_length, batch_size=wish.batch_size, strict=wish.strict,
                    ledger=True,
                )  # fmt: skip
                for one, mine in zip(found, results, strict=True):
                    mine.append(_checked(one, wish))
                asked.append(composite)
        return [
            ExplainedInput(sample.name, sample.stem, mine, asked, text=True)
            for sample, mine in zip(chunk, results, strict=True)
        ]

    for start in range(0, len(samples), wish.batch_size):
        yield from tried.together(samples[start : start + wish.batch_size], of_some)


def inputs_of(loaded: Loaded, text: str | tuple[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The model's inputs for a text: the ids, and further arguments."""
    import torch

    batch = collate(loaded.model, loaded.tokenizer, [tokenize(loaded.tokenizer, text)])
    inputs = {batch.named: batch.ids}
    if decodes(loaded.model) and not answers_alone(loaded.model, batch):
        inputs["decoder_input_ids"] = torch.tensor([[decoder_start(loaded.model)]])
    return inputs, batch.rest


def targets_of(loaded: Loaded, wish: Wish) -> list[Any]:
    """Targets as `explain_text` takes them: classes by index, tokens by id or as text, answers as text."""

    def meant(target: str) -> Any:
        if loaded.classes:
            return find_class(target, loaded.labels)
        return int(target[3:]) if re.fullmatch(r"id:\d+", target) else target

    found = [meant(target) for target in wish.targets] or [None]
    if wish.against is None:
        return found
    other = meant(wish.against)
    return [*found, other, Contrast(found[0], other)]


def _checked(result: TextRelevance, wish: Wish) -> TextRelevance:
    if isinstance(result.index, Contrast) and result.index.positive == result.index.negative:
        raise TargetError(f"{wish.against!r} cannot be set against itself: choose another target.")
    return result


def _asked(sample: TextSample, wish: Wish) -> Any:
    if wish.chat and isinstance(sample.text, tuple):
        raise InputError("a message is one text: leave out --context, or --chat.")
    return [{"role": "user", "content": sample.text}] if wish.chat else sample.text


def _generation(loaded: Loaded, sample: TextSample, composite: str, wish: Wish) -> Any:
    if isinstance(sample.text, tuple):
        raise InputError("--generate goes on with one text: leave out --context.")
    return relprop.explain_generation(
        loaded.model,
        loaded.tokenizer,
        _asked(sample, wish),
        max_new_tokens=wish.generate,
        composite=composite,
        strict=wish.strict,
    )


def _names_a_file(given: str) -> bool:
    """Whether an argument is a path: that of an existing file, or a word with the suffix of one."""
    called = bool(re.fullmatch(r"\S+", given)) and Path(given).suffix.lower() in (*TEXTS, *SUFFIXES)
    return called or _is(given, Path.is_file)


def _is(given: str, kind: Callable[[Path], bool]) -> bool:
    try:
        return bool(given.strip()) and kind(Path(given))
    except (OSError, ValueError):  # too long for a path, or with a NUL
        return False


def _file(path: Path, lines: bool) -> list[TextSample]:
    if path.suffix.lower() in SUFFIXES:
        raise InputError(f"{quoted(path.name)} is not text: this model reads texts and {', '.join(TEXTS)} files.")
    return _of_file(visible(path.name), path.stem, text_of(path), lines)


def _of_file(name: str, stem: str, text: str, lines: bool) -> list[TextSample]:
    if not text.strip():
        raise InputError(f"{name!r} is empty: there is nothing to explain.")
    if not lines:
        return [TextSample(name, stem, text.strip())]
    return [
        TextSample(f"{name}, line {number}", f"{stem}-{number}", line.strip())
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip()
    ]

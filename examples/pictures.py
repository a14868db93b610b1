"""Draws the pictures of texts in the documentation: `python examples/pictures.py FOLDER [SMOLLM2]`.

FOLDER is where they go; SMOLLM2, where given, is a copy of the language model in transformers' own format.
"""

from __future__ import annotations

import sys
from pathlib import Path

from classify_texts import OWN
from next_token import PROMPT, load

import networks
import relprop
from relprop.rendering import Drawing, Options, column, views

SENTENCE = "The capital of France is Paris, and the capital of Italy is"


def main(folder: str, model_folder: str | None = None) -> None:
    """Draws all of them."""
    classes(Path(folder))
    tokens(Path(folder), model_folder)


def classes(out: Path) -> None:
    """News and tweets."""
    drawn = []
    for data, number in (("news", 0), ("news", 1), ("tweets", 0), ("tweets", 2)):
        tokenizer, model = fitted(data)
        found = relprop.explain_text(model, tokenizer, OWN[data][number])
        drawn.append(views.drawing(found, Options(merge=True, room=640)))
    save(column(drawn, gap=0), out / "text-classes.png")


def tokens(out: Path, model_folder: str | None) -> None:
    """The next token by three questions, and the matrix of a generation."""
    tokenizer, model = load(model_folder) if model_folder else networks.smollm2()
    drawn = []
    for target, composite in (
        (" Paris", "attnlrp"),
        (relprop.Contrast("Paris", "Rome"), "attnlrp"),
        (" Paris", "cp_lrp"),
    ):
        found = relprop.explain_text(model, tokenizer, PROMPT, target, composite=composite)
        drawn.append(views.drawing(found, Options(room=420)))
    save(column(drawn, gap=0), out / "text-paris.png")

    found = relprop.explain_generation(model, tokenizer, SENTENCE, max_new_tokens=12)
    print(found)
    save(views.drawing(found, Options()), out / "text-generation.png")


FITTED: dict[str, tuple] = {}


def fitted(data: str) -> tuple:
    """A classifier, fitted once."""
    if data not in FITTED:
        FITTED[data] = networks.classifier(data)[:2]
    return FITTED[data]


def save(drawing: Drawing, path: Path) -> None:
    """At twice the resolution."""
    drawing.to_image(2.0).save(path, optimize=True)
    print(path)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""`relprop.compare_text`: the same text by several composites, for several targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from relprop.attribution.side_by_side import column_names, columns_of
from relprop.composites import Composite
from relprop.errors import InputError
from relprop.results.text_comparison import TextComparison
from relprop.signatures import public
from relprop.text.explain import explain_text
from relprop.text.tokens import is_chat


@public(
    "relprop.compare_text",
    {"target": "Targets are targets=, one or a list.", "composite": "It takes composites=[...]."},
)
def compare_text(
    model: Any,
    tokenizer: Any,
    text: Any,
    targets: Any = None,
    composites: Sequence[Composite | str] | Mapping[str, Composite | str] = (),
    *,
    ledger: bool = True,
    **options: Any,
) -> TextComparison:
    """Explains a text by several composites, and for several targets, side by side.

    Args:
        model: as in `explain_text`, like all arguments that are not listed here.
        tokenizer: as in `explain_text`.
        text: one text, in any form that `explain_text` takes.
        targets: one target, or a list of targets, each of which is a row.
        composites: the composites or their names, each of which is a column. A mapping gives the columns other names.
        ledger: whether to record what absorbed the part of the score that did not arrive.
        **options: further arguments of `explain_text`.

    Returns:
        A `TextComparison`, which is shown, saved and put into reports like any result. `C[0, 1]` is the `TextRelevance` of
        the first target by the second composite.

    Raises:
        RelpropError: as in `explain_text`. A `CompositeError` also where there is no composite, or two have one name.
    """
    named = columns_of(composites)
    if hasattr(text, "__array__") or (isinstance(text, list) and not is_chat(text)):
        raise InputError(
            "text is one text: compare several in a loop, [relprop.compare_text(model, tokenizer, t, ...) for t in texts]."
        )
    asked = list(targets) if isinstance(targets, list) else [targets]
    found = [
        explain_text(model, tokenizer, text, asked, composite=composite, ledger=ledger, **options)
        for _, composite in named
    ]
    return TextComparison.of([list(line) for line in zip(*found, strict=True)], column_names(named, found))

"""Tables of the documentation that are made from the code, so that they cannot go stale.

A page asks for one with a comment, `<!-- table: NAME -->`, on a line of its own.
"""

from __future__ import annotations

import inspect
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import relprop
from relprop.composites import NAMES, Composite, first
from relprop.engine.registry import FAMILIES, REFUSED, SILENT
from relprop.engine.roles import ROLES
from relprop.engine.traits import EVERY_TRAIT
from relprop.rules import Rule, WeightedRule
from relprop.rules.base import EVERYTHING, PROTOCOLS, WEIGHTED

DOCS = Path(__file__).parent
# Parameters of the composites and rules that have no default, for the examples printed.
BOUNDS = {"low": -1.0, "high": 1.0}


def fill(page: str) -> str:
    """The page with its tables in place; an unknown name is a `KeyError`."""
    return re.sub(
        r"^<!-- table: (\w+) -->$",
        lambda found: TABLES[found[1]](),
        page,
        flags=re.MULTILINE,
    )


def guides() -> str:
    """A table of contents of the pages that index.md does not name itself: a new page need not be listed anywhere."""
    listed = set((DOCS / "index.md").read_text(encoding="utf-8").split()) | {"index"}
    pages = (
        page.relative_to(DOCS).with_suffix("").as_posix() for page in DOCS.rglob("*.md")
    )
    found = [
        page
        for page in sorted(pages)
        if page not in listed and not page.startswith(("reference/", "tutorials/"))
    ]
    return (
        "\n".join(["```{toctree}", ":caption: Guides", ":hidden:", "", *found, "```"])
        if found
        else ""
    )


def composites() -> str:
    """Every named composite: what it is, its parameters, and its entries as `print` shows them."""
    parts = []
    for name, make in NAMES.items():
        made = _example(make)
        call = _untyped(f"{name}{inspect.signature(make)}".split(" ->")[0])
        parts.append(
            f"### `{name}`\n\n{_doc(make)}\n\n```text\n{call}\n\n{made}\n```\n"
        )
        if not made.multiply_by_inputs:
            parts.append(
                "The result is the modified gradient itself, not multiplied by the input.\n"
            )
    return "\n".join(parts)


def rules() -> str:
    """Every rule: its formula and source (the docstring's first paragraph), and what it acts on."""
    rows = []
    for name in relprop.rules.__all__:
        rule = getattr(relprop.rules, name)
        if not (inspect.isclass(rule) and issubclass(rule, Rule)) or rule in (
            Rule,
            WeightedRule,
        ):
            continue
        acts = (
            "every operation"
            if rule.families == EVERYTHING
            else ", ".join(sorted(rule.families))
        )
        rows.append(
            (
                f"`{_untyped(name + str(inspect.signature(rule))).split(' ->')[0]}`",
                _doc(rule),
                acts,
            )
        )
    return _table(("Rule", "Formula and source", "Acts on"), rows)


def costs() -> str:
    """What each rule for convolutions adds to a plain gradient, counted while it runs."""
    rows = []
    for name in relprop.rules.__all__:
        rule = getattr(relprop.rules, name)
        if (
            inspect.isclass(rule)
            and issubclass(rule, WeightedRule)
            and rule not in (WeightedRule, relprop.Pass)
        ):
            chosen = (
                relprop.ZeroBias(relprop.ZPlus())
                if rule is relprop.ZeroBias
                else _example(rule)
            )
            counts = [convolutions(chosen, mixed=mixed) for mixed in (False, True)]
            rows.append(
                (
                    f"`{chosen!r}`",
                    *(f"{forwards} + {backwards}" for forwards, backwards in counts),
                )
            )
    return _table(("Rule", "after a relu (inputs ≥ 0)", "inputs of both signs"), rows)


class Counting(TorchDispatchMode):
    """Counts convolutions, forward and backward, as torch runs them."""

    def __init__(self) -> None:
        super().__init__()
        self.forwards = self.backwards = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.forwards += func is torch.ops.aten.convolution.default
        self.backwards += func is torch.ops.aten.convolution_backward.default
        return func(*args, **(kwargs or {}))


def convolutions(rule: Rule, *, mixed: bool) -> tuple[int, int]:
    """Convolutions forward, beyond the model's own one, and backward, of a lone layer under this rule."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 6, 6, generator=generator)
    layer = nn.Conv2d(3, 4, 3)
    with Counting() as counting:
        relprop.attribute(
            layer,
            x if mixed else x.abs(),
            (0, 0, 0),
            composite=Composite({first: rule}),
        )
    return counting.forwards - 1, counting.backwards


def families() -> str:
    """The families of operations: how many there are, and what relevance does there by default."""
    rows = [
        (
            f"`{family}`",
            FAMILIES[family].says,
            _some({row.operation for row in relprop.operations.table(family)}),
        )
        for family in (*sorted(EVERYTHING), SILENT)
    ]
    return _table(("Family", "Relevance, by default", "Operations"), rows)


def defaults() -> str:
    """The default of each family, and whether an operation can do without a handler."""
    rows = [
        (
            f"`{name}`",
            FAMILIES[name].says,
            "needed" if FAMILIES[name].handler is None else "",
        )
        for name in (*sorted(EVERYTHING), SILENT)
    ]
    return _table(("Family", "Relevance, by default", "Handler"), rows)


def traits() -> str:
    """What an operation may do to the entries of its operand."""
    rows = [(f'`"{name}"`', says) for name, says in EVERY_TRAIT.items()]
    return _table(("Trait", "Meaning"), rows)


def roles() -> str:
    """What a tensor may be known to be: what gives it, what it survives, and who asks."""
    rows = [
        (
            f"`{role.name}`",
            role.given_by,
            ", ".join(sorted(role.survives)),
            role.asked_by,
        )
        for role in ROLES.values()
    ]
    return _table(
        ("role", "set by", "kept by operations with the trait", "used by"), rows
    )


def protocols() -> str:
    """The method by which a rule acts on each family, and the rules that have it."""
    made = [
        getattr(relprop.rules, name)
        for name in relprop.rules.__all__
        if inspect.isclass(getattr(relprop.rules, name))
        and issubclass(getattr(relprop.rules, name), Rule)
    ]
    rows = []
    for name in ("propagate", *PROTOCOLS):
        own = [
            rule
            for rule in made
            if hasattr(rule, name) and (name != "propagate" or rule.formulas & WEIGHTED)
        ]
        if own:
            wanted = [
                part
                for part in inspect.signature(getattr(own[0], name)).parameters
                if part != "self"
            ]
            family = "weighted layers" if name == "propagate" else f"`{name}`"
            given = PROTOCOLS.get(
                name, "of a `Layer` and `G` at its output: `G` at its input"
            )
            named = ", ".join(
                f"`{rule.__name__}`"
                for rule in own
                if rule.__name__ not in ("Rule", "WeightedRule")
            )
            rows.append((family, f"`{name}({', '.join(wanted)})`", given, named))
    return _table(("Family", "Method", "It computes", "Rules that define it"), rows)


def refused() -> str:
    """What is known to have no propagation, and why."""
    reasons: dict[str, set[str]] = defaultdict(set)
    for row in relprop.operations.table(REFUSED):
        reasons[row.reason].add(row.operation)
    rows = [
        (reason, ", ".join(f"`{name}`" for name in sorted(names)))
        for reason, names in reasons.items()
    ]
    return _table(("Reason", "Operations"), rows)


def _some(names: set[str], most: int = 30) -> str:
    """All names, or as many as a table can bear; the in-place ones are spellings of others."""
    main = sorted(
        name for name in names if not name.startswith("_") and not name.endswith("_")
    )
    shown = ", ".join(f"`{name}`" for name in main[:most])
    return shown if len(main) <= most else f"{shown}, and {len(main) - most} more"


def _example(make: Callable[..., Any]) -> Any:
    wanted = inspect.signature(make).parameters
    return make(
        **{
            name: BOUNDS[name]
            for name, one in wanted.items()
            if one.default is one.empty
        }
    )


def _untyped(signature: str) -> str:
    """A signature without its annotations."""
    return re.sub(r": '?[\w.]+( \| [\w.]+)*'?( = |(?=[,)]))", r"\2", signature).replace(
        " = ", "="
    )


def _doc(thing: object) -> str:
    """The first paragraph of the docstring, and the second where it names a source."""
    paragraphs = (inspect.getdoc(thing) or "").split("\n\n")
    shown = [
        part
        for part in paragraphs[:2]
        if part is paragraphs[0] or not re.match(r"\w+:\n", part)
    ]
    return " ".join(" ".join(shown).split())


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |"
        for line in lines
    )


TABLES = {
    make.__name__: make
    for make in (
        guides,
        composites,
        rules,
        costs,
        families,
        defaults,
        traits,
        refused,
        roles,
        protocols,
    )
}

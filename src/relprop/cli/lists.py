"""The commands that list rules and composites."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

import typer

import relprop
from relprop import rules as all_rules
from relprop.cli import printing
from relprop.cli.options import AsJson, composite_names
from relprop.cli.printing import errors_in_one_line
from relprop.composites import NAMES
from relprop.rules import Rule


def rules(json: AsJson = False) -> None:
    """List the rules: their formula, and the operations they act on."""
    found = [
        {"name": name, "parameters": _signature(rule), "what": _what(rule), "acts_on": sorted(rule.families)}
        for name, rule in vars(all_rules).items()
        if isinstance(rule, type) and issubclass(rule, Rule) and name not in ("Rule", "WeightedRule")
    ]
    if json:
        printing.data(found)
        return
    rows = [(f"{each['name']}{each['parameters']}", each["what"], _families(each["acts_on"])) for each in found]
    printing.table(("Rule", "What it does", "Acts on"), rows)


def composites(
    name: Annotated[
        str | None, typer.Argument(help="One of them, to see its table.", autocompletion=composite_names)
    ] = None,
    json: AsJson = False,
) -> None:
    """List the composites, or show the table of one: which rule acts where."""
    with errors_in_one_line():
        if name is not None:
            chosen = relprop.composites.by_name(name)
            rows = [(str(place), repr(rule)) for place, rule in chosen.entries]
            if json:
                entries = [{"place": place, "rule": rule} for place, rule in rows]
                printing.data({"name": name, "what": _what(NAMES[name]), "entries": entries})
            else:
                typer.echo(f"{name}{_signature(NAMES[name])}: {_what(NAMES[name])}\n{chosen}")
            return
    found = [{"name": each, "parameters": _signature(make), "what": _what(make)} for each, make in NAMES.items()]
    if json:
        printing.data(found)
    else:
        auto = ("auto", "picks one by what the network is made of")
        printing.table(
            ("Composite", "What it does"), [auto, *((f"{e['name']}{e['parameters']}", e["what"]) for e in found)]
        )


def _what(thing: Any) -> str:
    """Its documentation without arguments and errors: what it does, and its source."""
    return " ".join((inspect.getdoc(thing) or "").partition("\n\nArgs:")[0].partition("\n\nRaises:")[0].split())


def _signature(thing: Any) -> str:
    parts = [
        name if p.default is p.empty else f"{name}={p.default!r}"
        for name, p in inspect.signature(thing).parameters.items()
    ]
    return f"({', '.join(parts)})"


def _families(names: Any) -> str:
    return "everything" if len(names) > 8 else ", ".join(names)

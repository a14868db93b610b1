"""Turns the rules that modules carry into a composite, which the engine understands.

A module's own rule comes first, then that of the nearest container around it (for layers with weights), then the
table's, then LRP-epsilon for layers with weights. The rules are read anew on every call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from relprop.captum import default_rules
from relprop.captum.manipulated import Manipulated
from relprop.captum.rules import Alpha1_Beta0_Rule, EpsilonRule, GammaRule, IdentityRule, PropagationRule
from relprop.captum.stabilise import Stabilise
from relprop.composites import Composite, Place
from relprop.composites.places import Matcher
from relprop.errors import RuleError
from relprop.rules import Epsilon, Gamma, Pass, Rule, WeightedRule, Zero, ZeroBias, ZPlus
from relprop.rules.base import EVERYTHING, WEIGHTED

LAYERS = WEIGHTED - {"batch_norm"}
"""The families that take the rule of a container, or the default. A BatchNorm is merged into the layer before it."""

_HOOKS = (
    "forward_hook",
    "forward_hook_weights",
    "forward_pre_hook_activations",
    "backward_hook_activation",
    "_create_backward_hook_input",
    "_create_backward_hook_output",
)
_NEGLIGIBLE = 1e-9  # captum's default stabiliser


@dataclass(frozen=True)
class Modules(Matcher):
    """Operations of these families in these modules, which are compared by identity."""

    paths: dict[int, str]
    families: frozenset[str]

    def match(self, place: Place) -> bool:
        """Whether the operation is one of these."""
        return place.family in self.families and id(place.module) in self.paths

    def __str__(self) -> str:
        names = list(self.paths.values())
        return f"module {', '.join(map(repr, names[:3]))}{f' and {len(names) - 3} more' if names[3:] else ''}"


@dataclass(frozen=True)
class Assigned:
    """The rule of one module.

    Attributes:
        rule: the rule.
        families: the families of operations that it is for.
        explicit: whether a user set it, on the module, on a container or in a table.
    """

    rule: PropagationRule
    families: frozenset[str]
    explicit: bool


class Assignment:
    """Which rule acts in which module of a model.

    Raises:
        TypeError: a module's `rule` is not a `PropagationRule`, or overrides captum's hooks.
    """

    def __init__(self, model: nn.Module) -> None:
        self.default = EpsilonRule()
        self.modules = {path: module for path, module in model.named_modules(remove_duplicate=False)}
        self.rules: dict[int, Assigned] = {}
        defaults: dict[Any, PropagationRule] = {}
        around: dict[str, PropagationRule | None] = {}
        for path, module in self.modules.items():
            own = _own_rule(module, path)
            outer = around.get(path.rpartition(".")[0]) if path else None
            around[path] = own if own is not None else outer
            known = self.rules.get(id(module))
            if known is not None and known.explicit:
                continue
            if own is not None:
                container = next(module.children(), None) is not None
                self.rules[id(module)] = Assigned(own, LAYERS if container else EVERYTHING, True)
            elif outer is not None:
                self.rules[id(module)] = Assigned(outer, LAYERS, True)
            elif (found := _by_type(module, defaults)) is not None:
                self.rules[id(module)] = Assigned(found, EVERYTHING, not _is_default(found))

    def of(self, place: Place) -> PropagationRule | None:
        """The rule for a place; None if only the engine's default acts there."""
        assigned = self.rules.get(id(self._module(place)))
        if assigned is not None and place.family in assigned.families:
            return assigned.rule
        return self.default if place.family in LAYERS else None

    def _module(self, place: Place) -> nn.Module | None:
        """The module of a place. A place in a result has only the path."""
        return place.module if place.module is not None else self.modules.get(next(iter(place.paths), "no path"))

    def ran(self, placements: Iterable[tuple[Place, Rule | None]]) -> Iterator[tuple[PropagationRule, str, Place]]:
        """The rules that ran, in execution order, as rule, path and place."""
        for place, rule in placements:
            chosen = self.of(place)
            shared_out = (
                isinstance(chosen, EpsilonRule) and place.family in Stabilise.families and _listed(self._module(place))
            )
            if chosen is not None and (rule is not None or shared_out):
                yield chosen, next(iter(place.paths), ""), place

    def check(self, placements: Iterable[tuple[Place, Rule | None]]) -> None:
        """Refuses a container's rule if operations of the container ran, but no layer with weights did."""
        places = [place for place, _ in placements]
        for path, module in self.modules.items():
            if getattr(module, "rule", None) is None or next(module.children(), None) is None:
                continue
            inside = [
                p for p in places if any(name == path or name.startswith(f"{path}.") or not path for name in p.paths)
            ]
            if inside and not any(place.family in LAYERS for place in inside):
                raise RuleError(
                    f"the rule of module '{path}', {module.rule!r}, has no layer with weights to act on: set the rule of a "
                    "layer inside, or none."
                )

    def composite(self) -> Composite:
        """The assignment as a composite: entries by module identity, followed by the default."""
        groups: dict[tuple[Any, ...], dict[int, str]] = {}
        seen: set[int] = set()
        for path, module in self.modules.items():
            assigned = self.rules.get(id(module))
            if id(module) in seen:
                continue
            seen.add(id(module))
            if assigned is not None and assigned.explicit:
                for rule, families in translated(assigned.rule, module, path):
                    # each module with Pass has its own entry, so that one whose shapes differ can be refused by itself
                    alone = path if isinstance(rule, Pass) else None
                    groups.setdefault((rule, families & assigned.families, alone), {})[id(module)] = path
            if _passes(module):
                groups.setdefault((Pass(), frozenset({"activation"}), path), {})[id(module)] = path
        entries: list[tuple[Any, Rule]] = [
            (Modules(paths, families), rule) for (rule, families, _), paths in groups.items() if families
        ]
        return Composite([*entries, *((family, Epsilon(_NEGLIGIBLE)) for family in sorted(LAYERS))], name="captum")


def translated(rule: PropagationRule, module: nn.Module, path: str) -> Iterable[tuple[Rule, frozenset[str]]]:
    """The engine's rules for a captum rule, each with the families that it is for."""
    weighted = _weighted(rule, module, path)
    if isinstance(weighted, Pass):
        # The composite refuses Pass where relevance cannot go straight through.
        return [(weighted, EVERYTHING)]
    # Other rules treat a BatchNorm as merged with the layer before it, under that layer's rule.
    apart = isinstance(weighted, Manipulated) or rule.STABILITY_FACTOR > _NEGLIGIBLE
    found: list[tuple[Rule, frozenset[str]]] = [(weighted, WEIGHTED if apart else LAYERS)]
    if rule.STABILITY_FACTOR > _NEGLIGIBLE:
        found.append((Stabilise(rule.STABILITY_FACTOR), Stabilise.families))
    return found


def _weighted(rule: PropagationRule, module: nn.Module, path: str) -> WeightedRule:
    """The engine's rule for a captum rule. A rule that overrides `_manipulate_weights` becomes a `Manipulated`."""
    manipulates = type(rule)._manipulate_weights
    if isinstance(rule, IdentityRule) and manipulates is EpsilonRule._manipulate_weights:
        return Pass()
    if manipulates is EpsilonRule._manipulate_weights:
        return Epsilon(rule.STABILITY_FACTOR) if rule.STABILITY_FACTOR else Zero()
    if isinstance(rule, GammaRule) and manipulates is GammaRule._manipulate_weights:
        return ZeroBias(Gamma(rule.gamma)) if rule.set_bias_to_zero else Gamma(rule.gamma)
    if isinstance(rule, Alpha1_Beta0_Rule) and manipulates is Alpha1_Beta0_Rule._manipulate_weights:
        return ZeroBias(ZPlus()) if rule.set_bias_to_zero else ZPlus()
    return Manipulated(rule, module, path)


def _own_rule(module: nn.Module, path: str) -> PropagationRule | None:
    """The rule that a module carries, or None. Refuses what is not a valid rule."""
    rule = getattr(module, "rule", None)
    if rule is None:
        return None
    where = f"module '{path}' ({type(module).__name__})" if path else f"the model ({type(module).__name__})"
    if not isinstance(rule, PropagationRule):
        hint = ""
        if isinstance(rule, type) and issubclass(rule, PropagationRule):
            hint = f" Did you forget the parentheses? {rule.__name__}()"
        elif type(rule).__module__.startswith("captum."):
            hint = f" Import the rule from relprop.captum: {type(rule).__name__}"
        raise TypeError(
            f"the rule of {where} must be an instance of relprop.captum.PropagationRule; got {rule!r}.{hint}"
        )
    overridden = [name for name in _HOOKS if hasattr(rule, name)]
    if overridden:
        raise TypeError(
            f"the rule of {where}, {type(rule).__name__}, defines {overridden[0]}: relprop keeps no hooks on modules that "
            "it could replace. A rule that changes weights defines _manipulate_weights alone; any other is a few lines as "
            f"a relprop.WeightedRule, for relprop.attribute(..., composite=Composite({{path({path!r}): ...}}))."
        )
    return rule


def _listed(module: nn.Module | None) -> bool:
    return any(kind in default_rules.SUPPORTED_LAYERS_WITH_RULES for kind in type(module).__mro__)


def _by_type(module: nn.Module, made: dict[Any, PropagationRule]) -> PropagationRule | None:
    """The table's rule for a module, or None. Each entry of the table makes one rule object."""
    for kind in type(module).__mro__:
        make: Callable[[], PropagationRule] | None = default_rules.SUPPORTED_LAYERS_WITH_RULES.get(kind)
        if make is not None:
            if make not in made:
                made[make] = make()
            return made[make]
    return None


def _is_default(rule: PropagationRule) -> bool:
    return type(rule) is EpsilonRule and rule.STABILITY_FACTOR == _NEGLIGIBLE


def _passes(module: nn.Module) -> bool:
    kinds = set(default_rules.SUPPORTED_NON_LINEAR_LAYERS) - default_rules.PASSING_ANYWAY
    return bool(kinds) and any(kind in kinds for kind in type(module).__mro__)

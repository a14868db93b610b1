"""`relprop.sanity`: maps against a truth that is known, and simple checks of the model at hand."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from relprop.errors import InputError
from relprop.evaluation.checked import Check
from relprop.evaluation.generators import generator
from relprop.evaluation.left_unchanged import guarded
from relprop.evaluation.localising import pointing
from relprop.evaluation.memory import BatchSize
from relprop.evaluation.methods import Method, methods_of
from relprop.evaluation.paired_statistics import spearman
from relprop.evaluation.planted.built import BUILT, PlantedTask
from relprop.evaluation.planted.trained import planted, side_by_side
from relprop.evaluation.randomising import layers_of, randomise
from relprop.evaluation.result import nothing
from relprop.evaluation.stream import usual_size
from relprop.evaluation.subject import Subject, subject
from relprop.evaluation.truth import truth_of
from relprop.evaluation.units import UnitMap, units_of
from relprop.results.files.checks import holds, require
from relprop.results.identity import Identity
from relprop.results.ledger import Ledger
from relprop.results.made import Made
from relprop.results.protocol import loadable
from relprop.signatures import public

if TYPE_CHECKING:
    from relprop.rendering.view import Options, Row, View

BUILT_LIMIT = 0.99
"""The share of absolute relevance that must lie on what a built network reads."""
FOUND_LIMIT = 0.8
"""The share of samples whose most relevant unit must be the planted one, or lie in the right half."""
MOVED_LIMIT = 0.5
"""The rank correlation that must not be reached after all layers are randomised."""
CLASS_LIMIT = 0.95
"""The rank correlation of two classes' maps that must not be reached."""


@loadable
@dataclass(kw_only=True, eq=False)
class Sanity(Made):
    """Checks of methods against a known truth.

    Attributes:
        checks: the checks.
    """

    kind: ClassVar[str] = "sanity"

    checks: list[Check] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether no check failed, and at least one was made."""
        judged = [check.passed for check in self.checks if check.passed is not None]
        return bool(judged) and all(judged)

    def views(self, options: Options) -> list[View]:
        """A page of red and green, with pictures."""
        from relprop.evaluation.checks_drawn import checked

        return checked(self.checks)

    def rows(self) -> list[Row]:
        """No scores are explained here."""
        return []

    def subject(self, n: int) -> str:
        """What it is, in words."""
        return "sanity"

    def kept(self) -> dict[str, Any]:
        """What a folder stores."""
        return {"checks": [dict(vars(check)) for check in self.checks]}

    @classmethod
    def restored(cls, content: dict[str, Any], made: dict[str, Any], ledger: Callable[[int], Ledger]) -> Sanity:
        """Rebuilds the result from the content of a folder."""
        require(content, ("checks",))
        types = {"name": str, "method": str, "value": float, "limit": float, "said": str}
        if not isinstance(content["checks"], list):
            raise ValueError("its checks are not a list")
        for each in content["checks"]:
            if not isinstance(each, dict) or not holds(each, types) or each.get("passed") not in (None, True, False):
                raise ValueError("one of its checks is not described")
            for name in ("map", "truth"):
                if each.get(name) is not None and not (isinstance(each[name], Tensor) and each[name].ndim == 2):
                    raise ValueError("a map of its checks is not a picture")
        names = ("name", "method", "passed", "value", "limit", "said", "map", "truth")
        return cls(
            checks=[Check(*(each.get(n) for n in names)) for each in content["checks"]], **made, ledger=ledger(1)
        )

    def __repr__(self) -> str:
        words = {True: "passed", False: "FAILED", None: "left out"}
        rows = [(words[each.passed], each.name, each.method, each.said) for each in self.checks]
        widths = [max(len(row[n]) for row in rows) for n in range(3)]
        return "\n".join("  ".join([*(row[n].ljust(widths[n]) for n in range(3)), row[3]]) for row in rows)


@public("relprop.sanity")
def sanity(
    model: Any,
    inputs: Any = None,
    targets: Any = None,
    methods: Any = ("auto",),
    *,
    select: Any = None,
    forward_kwargs: dict[str, Any] | None = None,
    samples: int = 16,
    seed: int = 0,
) -> Sanity:
    """Checks methods where the truth is known.

    With a kind, "dense", "convolutional", "recurrent", "attention" or "built" for all four, networks are built whose
    weights read known units and nothing else. With a model and inputs, a copy of it is trained in seconds to tell
    whether a patch or a word was planted, pictures are put side by side, and the maps at hand are checked: whether they
    move when weights are randomised, differ between classes, and are the same twice.

    Args:
        model: a module, or a kind of built network.
        inputs: samples, as `relprop.attribute` takes them; none for a kind.
        targets: as `relprop.attribute` takes them.
        methods: as `relprop.evaluate` takes them. Those that are tied to a model are left out where another is needed.
        select: as in `relprop.attribute`.
        forward_kwargs: further keyword arguments of the model.
        samples: how many samples a built network gets.
        seed: the seed of all generators.

    Returns:
        A `Sanity`, which prints as a list and is drawn as a page of red and green.

    Raises:
        InputError: there is no such kind, or inputs are missing.
    """
    found = methods_of(methods, ())
    if isinstance(model, str):
        kinds = list(BUILT) if model == "built" else [model]
        if kinds[0] not in BUILT:
            raise InputError(
                f"there is no kind {model!r} of network; there are: built, {', '.join(BUILT)}; or pass a model."
            )
        if inputs is not None:
            raise InputError("a built network has inputs of its own: leave inputs out.")
        with guarded(None):
            tasks = [BUILT[kind](samples, generator(seed, f"built {kind}")) for kind in kinds]
            checks = [_built(each, task, seed) for task in tasks for each in found]
        return Sanity(composite=nothing(), checks=checks)
    if inputs is None:
        raise InputError("sanity needs inputs, samples of the model's data; without them pass a kind, such as 'built'.")
    made = subject(model, inputs, targets, select=select, kwargs=dict(forward_kwargs or {}))
    with guarded(model):
        size = BatchSize(usual_size(made.main))
        made.measure(size)
        units = units_of(None, made.main, inputs if hasattr(inputs, "encodings") else made.inputs, made.path)
        checks = [check for each in found for check in _of_model(made, units, each, seed, size)]
        tasks = [planted(made, seed), side_by_side(made, seed)]
        checks += [_planted(each, task, made, seed) for task in tasks for each in found]
    return Sanity(composite=nothing(), model=Identity.of(model), checks=checks)


def _maps(each: Method, task: PlantedTask, made: Subject, seed: int) -> tuple[Tensor, UnitMap, Tensor] | None:
    """The relevance of a task's samples, its units, and the share of each unit that is true; None if there is no map."""
    moved = each.of_model(task.model) if task.model is not made.model or each.kind != "composite" else each
    if moved is None:
        return None
    size = BatchSize(usual_size(made.main))
    found = moved.explain(made, list(range(len(made))), seed, size)
    truth = truth_of(task.truth, made, 0, len(made))
    assert truth is not None
    units = units_of(task.units, made.main, made.inputs, made.path)
    shape = torch.broadcast_shapes(units.at.shape[1:], truth.shape[1:])
    return found, units, units.gather(truth.expand(len(made), *shape).double()) > 0


def _built(each: Method, task: PlantedTask, seed: int) -> Check:
    """Relevance elsewhere than on what the network reads is an error."""
    made = subject(task.model, task.inputs, task.target)
    made.measure(BatchSize(64))
    answer = _maps(each, task, made, seed)
    if answer is None:
        return _left_out(task.name, each, BUILT_LIMIT, "the method is tied to another model")
    found, units, true = answer
    relevance = units.gather(found).abs()
    share = float(((relevance * true).sum(1) / relevance.sum(1).clamp(min=1e-300)).mean())
    chance = float((units.gather(torch.ones_like(found)) * true).sum() / found[..., :].numel())
    said = f"{share:.1%} of absolute relevance on what is read; chance {chance:.0%}, needed {BUILT_LIMIT:.0%}"
    picture, mask = _picture(found, units, true)
    return Check(task.name, each.name, share >= BUILT_LIMIT, share, BUILT_LIMIT, said, picture, mask)


def _planted(each: Method, task: PlantedTask, made: Subject, seed: int) -> Check:
    """The most relevant unit must be the planted one; or, with twins, the one whose relevance rises most."""
    if task.why:
        return _left_out(task.name, each, FOUND_LIMIT, task.why)
    other = subject(task.model, task.inputs, task.target, select=made.select, kwargs=made.kwargs)
    other.measure(BatchSize(usual_size(other.main)))
    answer = _maps(each, task, other, seed)
    if answer is None:
        return _left_out(task.name, each, FOUND_LIMIT, "the method is tied to another model")
    found, units, true = answer
    if task.twins is not None:
        # What the samples share speaks in both; only what was planted makes the difference.
        twin = subject(task.model, task.twins, task.target, select=made.select, kwargs=made.kwargs)
        twin.measure(BatchSize(usual_size(other.main)))
        bare = _maps(each, task, twin, seed)
        assert bare is not None
        found = found - bare[0]
    relevance = units.gather(found).masked_fill(~units.present(len(other)), float("-inf"))
    hits = pointing(relevance, true)
    share, chance = float(hits.mean()), float(true.sum() / units.present(len(other)).sum())
    what = "the unit whose relevance rises most" if task.twins is not None else "the most relevant unit"
    said = f"{what} is right in {share:.0%} of {len(other)} samples; chance {chance:.0%}, needed {FOUND_LIMIT:.0%}"
    picture, mask = _picture(found, units, true)
    return Check(task.name, each.name, share >= FOUND_LIMIT, share, FOUND_LIMIT, said, picture, mask)


def _of_model(made: Subject, units: UnitMap, each: Method, seed: int, size: BatchSize) -> list[Check]:
    """Checks of the model at hand."""
    samples = list(range(len(made)))
    first = units.gather(each.explain(made, samples, seed, size))
    counts = units.counts.expand(len(made)).tolist()

    def alike(other: Tensor) -> float:
        return float(torch.stack([spearman(first[n, :c], other[n, :c]) for n, c in enumerate(counts)]).nanmean())

    again = units.gather(each.explain(made, samples, seed, size))
    gap = float((first - again).abs().max() / first.abs().max().clamp(min=1e-300))
    found = [Check("the same twice", each.name, gap <= 1e-6, gap, 1e-6, f"largest relative difference {gap:.1g}")]
    name, layers = "moves when weights are random", layers_of(made.model) if hasattr(made.model, "parameters") else []
    whole = copy.deepcopy(made.model) if layers else None
    moved = each.of_model(whole) if layers and not each.free else None
    if moved is None:
        found.append(_left_out(name, each, MOVED_LIMIT, "the method is tied to its model, or the model has no weights"))
    else:
        assert whole is not None
        for layer in layers:
            randomise(whole, layer, seed)
        value = alike(units.gather(moved.explain(made, samples, seed, size, model=whole)))
        said = f"rank correlation {value:.2f} after all layers are randomised; must be below {MOVED_LIMIT}"
        found.append(Check(name, each.name, value < MOVED_LIMIT, value, MOVED_LIMIT, said))
    found.append(_classes(made, units, each, seed, size, alike))
    return found


def _classes(
    made: Subject, units: UnitMap, each: Method, seed: int, size: BatchSize, alike: Callable[[Tensor], float]
) -> Check:
    name, targets = "differs between classes", made.targets(range(len(made)))
    listed = targets if isinstance(targets, list) else [targets] * len(made)
    if each.kind == "map" or not all(isinstance(one, int) for one in listed):
        return _left_out(name, each, CLASS_LIMIT, "it is a finished map, or the targets are not classes")
    device = made.main.device
    rows = size.batches(len(made), lambda a, b: made.output(made.rows(torch.arange(a, b, device=device))).cpu())
    outputs = torch.cat(list(rows))
    if outputs.ndim != 2 or outputs.shape[1] < 3:
        # The two logits of two classes may be exact opposites, for which rank correlation is -1 or 1 by construction.
        return _left_out(name, each, CLASS_LIMIT, "the model has fewer than three classes")
    other = outputs.double().scatter(1, torch.tensor(listed)[:, None], float("-inf")).argmax(1).tolist()
    value = alike(units.gather(each.explain(made, list(range(len(made))), seed, size, target=other)))
    said = f"rank correlation {value:.2f} with the likeliest other class; must be below {CLASS_LIMIT}"
    return Check(name, each.name, value < CLASS_LIMIT, value, CLASS_LIMIT, said)


def _left_out(name: str, each: Method, limit: float, why: str) -> Check:
    return Check(name, each.name, None, float("nan"), limit, why)


def _picture(found: Tensor, units: UnitMap, true: Tensor) -> tuple[Tensor, Tensor]:
    """The first sample's map and truth, as pictures or as rows of units."""
    if found.ndim == 4:
        at = units.at[:1].expand(1, 1, *found.shape[2:])
        return found[0].sum(0).float().cpu(), true[:1].gather(1, at.reshape(1, -1)).reshape(
            found.shape[2:]
        ).float().cpu()
    return units.gather(found)[:1].float().cpu(), true[:1].float().cpu()

"""Methods of explanation, in whatever form they are given: each becomes a `Method` that maps samples to relevance."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from relprop.attribution.attribute import attribute
from relprop.attribution.propagate import resolve
from relprop.composites import Composite
from relprop.errors import InputError, NonFiniteError, TargetError
from relprop.evaluation.baselines import BASELINES
from relprop.evaluation.counting import PassCounts, counted
from relprop.evaluation.fingerprints import Fingerprints
from relprop.evaluation.generators import chance, same, seed_of, seeded
from relprop.evaluation.memory import BatchSize
from relprop.evaluation.subject import Subject, batch, targets_of
from relprop.results.contrast import Contrast
from relprop.trees import leaves, map_tree


@dataclass(eq=False)
class Method:
    """A method of explanation under a name.

    Attributes:
        name: its name in tables.
        given: what the user gave: a composite, a function, an object of another library, or a finished map.
        kind: "composite", "function", "captum", "shap", "map" or "free" (of the model).
        options: keyword arguments for each call.
        forwards: the samples that went forward, so far.
        backwards: the samples that went backward, so far.
        explained: the number of samples that were explained, so far.
    """

    name: str
    given: Any
    kind: str
    options: dict[str, Any] = field(default_factory=dict)
    forwards: int = 0
    backwards: int = 0
    explained: int = 0
    draws: bool | None = None

    def rename(self, name: str) -> None:
        """Takes another name."""
        self.name = name

    def recall(self, forwards: int, backwards: int) -> None:
        """Counts one sample whose map is kept from an earlier time, with what it took then."""
        self.forwards += forwards
        self.backwards += backwards
        self.explained += 1

    @property
    def free(self) -> bool:
        """Whether it knows nothing of the model."""
        return self.kind == "free"

    def explain(self, subject: Subject, samples: Sequence[int], seed: int, size: BatchSize, **changed: Any) -> Tensor:
        """The relevance of the main input, one row per number in `samples`, detached.

        Args:
            subject: the model and the samples.
            samples: the samples to explain.
            seed: the seed of generators.
            size: samples at once.
            **changed: `model`, another model; `main`, other main inputs, a row for each number in `samples`; `target`,
                another target for all.

        Raises:
            InputError: the method gave something that is not a map of the main input.
            NonFiniteError: its map holds NaN or infinite values.
        """

        def some(start: int, stop: int) -> Tensor:
            chosen = list(samples[start:stop])
            given = {**changed, **({"main": changed["main"][start:stop]} if "main" in changed else {})}
            return self._checked(self._some(subject, chosen, seed, given), subject, chosen)

        found = list(size.batches(len(samples), some))
        self.explained += len(samples)
        return torch.cat(found)

    def _some(self, subject: Subject, samples: list[int], seed: int, changed: dict[str, Any]) -> Tensor:
        if self.kind in ("composite", "map", "free"):
            return self._call(subject, samples, seed, changed)
        if self.draws is not True:
            before, passes = chance(), (self.forwards, self.backwards)
            with seeded(seed_of(seed, self.name)):
                start = chance()
                found = self._call(subject, samples, seed, changed)
                self.draws = not same(start, chance())
            assert same(before, chance())
            if not self.draws:
                return found
            self.forwards, self.backwards = passes
        # It draws random numbers: each sample gets its own, whatever samples are beside it.
        rows = []
        for row, sample in enumerate(samples):
            one = {**changed, **({"main": changed["main"][row : row + 1]} if "main" in changed else {})}
            with seeded(seed_of(seed, self.name, subject.fingerprint(sample))):
                rows.append(self._call(subject, [sample], seed, one))
        return torch.cat(rows)

    def _call(self, subject: Subject, samples: list[int], seed: int, changed: dict[str, Any]) -> Tensor:
        rows = torch.tensor(samples, device=subject.main.device)
        if self.kind == "map":
            if changed:
                raise InputError(f"{self.name!r} is a finished map: it cannot be made again for other inputs.")
            return self.given.index_select(0, rows.to(self.given.device)).to(subject.main.device)
        if self.kind == "free":
            return BASELINES[self.given](subject, samples, seed, changed.get("main"))
        inputs = subject.rows(rows, changed.get("main"))
        targets = targets_of(changed.get("target", subject.target), samples, len(subject))
        model = changed.get("model", subject.model)
        if self.kind == "composite":
            return self._by_composite(subject, model, inputs, targets)
        with torch.inference_mode(False), torch.enable_grad(), counted(model) as passes:
            inputs = map_tree(lambda leaf: leaf.detach().clone(), inputs)
            found = _CALLS[self.kind](self, model, subject, inputs, targets)
        self._count(passes)
        return _main_of(found, subject)

    def _by_composite(self, subject: Subject, model: Any, inputs: Any, targets: Any) -> Tensor:
        found = attribute(
            model, inputs, targets, composite=self.given, select=subject.select, forward_kwargs=subject.kwargs,
            **self.options,
        )  # fmt: skip
        self.forwards += batch(inputs)
        self.backwards += batch(inputs)
        return _main_of(found.values, subject)

    def _count(self, passes: PassCounts) -> None:
        self.forwards += passes.forwards
        self.backwards += passes.backwards

    def _checked(self, found: Tensor, subject: Subject, samples: list[int]) -> Tensor:
        main = subject.main
        if len(found) != len(samples) or found.is_complex():
            raise InputError(
                f"{self.name!r} gave a map of shape {tuple(found.shape)} for {len(samples)} samples of shape "
                f"{tuple(main.shape[1:])}."
            )
        given = tuple(found.shape)
        if found.ndim == main.ndim - 1 and main.ndim > 2:  # a map without channels
            found = found.unsqueeze(1 if main.ndim == 4 else found.ndim)
        if found.ndim == main.ndim and any(
            a not in (1, b) for a, b in zip(found.shape[1:], main.shape[1:], strict=True)
        ):
            raise InputError(
                f"{self.name!r} gave a map of shape {given} for inputs of shape {tuple(main.shape)}: it must "
                "have one entry for each of the inputs, or for all channels together."
            )
        found = found.detach().double()
        if not bool(torch.isfinite(found).all()):
            wrong = samples[int((~torch.isfinite(found)).flatten(1).any(1).nonzero()[0])]
            raise NonFiniteError(f"the map of sample {wrong} by {self.name!r} holds NaN or infinite values.")
        return found

    def of_model(self, model: Any) -> Any:
        """The same object for a copy of the model, or None if it cannot be had."""
        if self.kind in ("composite", "free"):
            return self
        if self.kind == "captum" and hasattr(self.given, "forward_func") and not hasattr(self.given, "layer"):
            moved = copy.copy(self.given)
            moved.forward_func = model
            if isinstance(getattr(moved, "model", None), nn.Module):
                moved.model = model
            return Method(self.name, moved, self.kind, self.options)
        return None

    def fingerprint(self, prints: Fingerprints, composite: Composite | None = None) -> str:
        """What it is, for the keys of finished work.

        Args:
            prints: takes digests.
            composite: what "auto" stands for, where the method is "auto".
        """
        given = self.given if composite is None else composite
        name = "" if self.kind == "composite" else self.name  # what draws random numbers draws by its name
        return f"{self.kind}:{name}:{prints.of(given)}:{prints.of(self.options)}"


def method(given: Any, name: str | None = None, **options: Any) -> Method:
    """A method with arguments: an object of captum's with those of its `attribute`, or a composite or function.

    Args:
        given: what `relprop.evaluate` takes as a method.
        name: its name in tables; None takes that of its class or function.
        **options: keyword arguments of each call, such as `baselines=` and `n_steps=`.

    Raises:
        InputError: it is nothing that explains.
    """
    if isinstance(given, Method):
        return Method(name or given.name, given.given, given.kind, {**given.options, **options})
    if isinstance(given, str) and given in BASELINES:
        return Method(name or given, given, "free", options)
    if isinstance(given, (str, Composite)):
        found = resolve(given)
        own = str(given if isinstance(given, str) else given.name)
        return Method(name or own, found or given, "composite", options)
    values = given if isinstance(given, Tensor) else getattr(given, "values", None)
    if values is not None and not callable(values):
        return _finished(given, values, name)
    if hasattr(given, "__array__"):
        return Method(name or "map", torch.as_tensor(given), "map")
    if hasattr(given, "shap_values"):
        return Method(name or type(given).__name__, given, "shap", options)
    if hasattr(given, "attribute"):
        return Method(name or type(given).__name__, given, "captum", options)
    if callable(given):
        return Method(name or str(getattr(given, "__name__", type(given).__name__)), given, "function", options)
    raise InputError(
        f"a method is the name of a composite, a Composite, a function of inputs and targets, an object of captum's or "
        f"shap's, or a finished map; got {given!r}."
    )


def methods_of(given: Any, free: Sequence[str]) -> list[Method]:
    """The methods, each under a name of its own, and after them those that know nothing about the model."""
    if isinstance(given, Mapping):
        found = [method(each, str(name)) for name, each in given.items()]
    elif isinstance(given, (list, tuple)):
        found = [method(each) for each in given]
    else:
        found = [method(given)]
    if not found:
        raise InputError("methods is empty: give at least one, such as methods=['auto'].")
    known = {each.given for each in found if each.free}
    found += [method(name) for name in free if name not in known]
    names: dict[str, int] = {}
    for each in found:
        names[each.name] = names.get(each.name, 0) + 1
        if names[each.name] > 1:
            each.rename(f"{each.name} {names[each.name]}")
    return found


def _finished(given: Any, values: Any, name: str | None) -> Method:
    """A map that is there already: a tensor, a `Relevance`, an `Explanation` of shap's."""
    composite = getattr(given, "composite", None)
    found = values if isinstance(values, (Tensor, dict, tuple, list)) else torch.as_tensor(values)
    if not isinstance(found, Tensor):
        tensors = [leaf for _, leaf in leaves(found) if isinstance(leaf, Tensor)]
        if not tensors:
            raise InputError(f"a {type(given).__name__} holds no tensor of relevance.")
        found = next((leaf for leaf in tensors if bool(leaf.abs().sum() > 0)), tensors[0])
    return Method(name or getattr(composite, "name", None) or "map", found.detach(), "map")


def _by_function(self: Method, model: Any, subject: Subject, inputs: Any, targets: Any) -> Any:
    return self.given(inputs, targets, **self.options)


def _by_captum(self: Method, model: Any, subject: Subject, inputs: Any, targets: Any) -> Any:
    if callable(targets) or isinstance(targets, Contrast):
        raise TargetError(
            f"{self.name!r} takes classes, and the target is {targets!r}: pass a function of inputs and targets instead."
        )
    if isinstance(targets, list) and targets and isinstance(targets[0], int):
        targets = torch.tensor(targets, device=subject.main.device)
    return self.given.attribute(inputs, target=targets, **self.options)


def _by_shap(self: Method, model: Any, subject: Subject, inputs: Any, targets: Any) -> Any:
    if not isinstance(inputs, Tensor):
        raise InputError(f"{self.name!r} of shap takes a single input; the model has several.")
    found = self.given.shap_values(inputs.detach().cpu().numpy(), **self.options)
    if isinstance(found, list):  # one array per class
        found = torch.stack([torch.as_tensor(part) for part in found], -1)
    found = torch.as_tensor(found)
    if found.ndim == inputs.ndim + 1:
        if found.shape[-1] == 1:
            return found[..., 0]
        picked = targets if isinstance(targets, list) else [targets] * len(found)
        return torch.stack([row[..., int(t)] for row, t in zip(found, picked, strict=True)])
    return found


_CALLS: dict[str, Callable[..., Any]] = {"function": _by_function, "captum": _by_captum, "shap": _by_shap}


def _main_of(found: Any, subject: Subject) -> Tensor:
    """The relevance of the main input, out of a tree like the inputs or a single tensor."""
    if isinstance(found, tuple) and len(found) == 1 and not isinstance(subject.inputs, tuple):
        found = found[0]
    if hasattr(found, "__array__") and not isinstance(found, Tensor):
        found = torch.as_tensor(found)
    if not isinstance(found, Tensor):
        tree = dict(leaves(found))
        found = tree.get(subject.path)
        if not isinstance(found, Tensor):
            raise InputError(f"a method gave no map of {subject.path}; it gave {', '.join(tree) or 'nothing'}.")
    return found.to(subject.main.device)

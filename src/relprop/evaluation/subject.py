"""What is evaluated on: a model, some samples, and the target of each; and the score of any changed sample."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from relprop.attribution.checks import admit, arguments
from relprop.attribution.mistaken import no_output
from relprop.attribution.targets import EntryTarget, as_entries, known_labels, scores, select_output
from relprop.errors import InputError, NonFiniteError, TargetError
from relprop.evaluation.memory import BatchSize
from relprop.results.contrast import Contrast
from relprop.trees import leaves, map_tree

OF = ("logit", "probability", "log_probability", "log_odds")
"""What is read off the output before the target picks its entry."""
_IDS = ("input_ids", "inputs_embeds", "pixel_values", "input_values", "input_features")


@dataclass(eq=False)
class Subject:
    """A model and N samples with their targets.

    Attributes:
        model: a module, or any callable.
        inputs: the tree of inputs; each tensor has the samples first.
        path: which leaf of the tree is changed and judged: the main input.
        target: the target as it was understood.
        score: the scores of the samples as they are, float64 of shape (N,), on the CPU.
        of: what is read off the output: one of `OF`, or a function of it.
        select: as in `relprop.attribute`.
        labels: names of the classes.
        kwargs: further keyword arguments of the model.
        forwards: the number of samples that went through the model so far.
    """

    model: Any
    inputs: Any
    path: str
    given: Any
    of: str | Callable[[Tensor], Tensor] = "logit"
    select: Any = None
    labels: Any = None
    kwargs: dict[str, Any] = field(default_factory=dict)
    target: Any = None
    score: Tensor = field(default_factory=lambda: torch.empty(0))
    forwards: int = 0
    _entries: Any = None
    _prints: list[bytes] = field(default_factory=list)

    @property
    def main(self) -> Tensor:
        """The main input, (N, ...)."""
        return next(leaf for path, leaf in leaves(self.inputs) if path == self.path)

    def __len__(self) -> int:
        return self.main.shape[0]

    def rows(self, samples: Tensor, main: Tensor | None = None, **others: Tensor) -> Any:
        """The inputs of some samples, one row each, with another main input, or other leaves of a dict, if given."""
        paths = iter([path for path, _ in leaves(self.inputs)])

        def pick(leaf: Tensor) -> Tensor:
            return main if next(paths) == self.path and main is not None else leaf.index_select(0, samples)

        tree = map_tree(pick, self.inputs)
        return {**tree, **others} if others else tree

    def alone(self, sample: int) -> Any:
        """The inputs of one sample, its axis kept."""
        return map_tree(lambda leaf: leaf[sample : sample + 1], self.inputs)

    def targets(self, samples: Sequence[int]) -> Any:
        """The targets of some rows, in a form that `relprop.attribute` takes."""
        return targets_of(self.target, samples, len(self))

    def output(self, inputs: Any) -> Any:
        """The part of the model's output that is explained. Gradients are off."""
        args, kwargs = arguments(inputs, (), self.kwargs)
        with torch.no_grad():
            found = select_output(self.model(*args, **kwargs), self.select)
        self.forwards += batch(inputs)
        return found

    def scores(self, inputs: Any, samples: Tensor) -> Tensor:
        """The scores of changed samples, float64. Row j is a form of sample `samples[j]` and has its target."""
        output = read(self.output(inputs), self.of)
        found, _ = scores(output, _picked(self._entries, samples), None)
        if found.ndim == 0:
            found = found[None]
        return found.detach().double()

    def measure(self, size: BatchSize) -> None:
        """Runs the samples as they are, and settles the target.

        Raises:
            TargetError: the target does not name one score per sample.
            NonFiniteError: a score is NaN or infinite.
        """
        count, device = len(self), self.main.device
        found = list(size.batches(count, lambda a, b: self.output(self.rows(torch.arange(a, b, device=device)))))
        if not all(isinstance(part, Tensor) for part in found):
            raise TargetError(no_output(found[0]))
        output = torch.cat([part if part.ndim else part[None] for part in found])
        if output.shape[0] != count:
            raise InputError(
                f"the model returned {output.shape[0]} rows for {count} samples: evaluation needs one row per sample."
            )
        _, self.target = scores(output, self.given, self.labels)
        self._entries = as_entries(self.target, output, self.labels)
        self.score = scores(read(output, self.of), self._entries, None)[0].detach().double().cpu().reshape(-1)
        if not bool(torch.isfinite(self.score).all()):
            wrong = int((~torch.isfinite(self.score)).nonzero()[0])
            raise NonFiniteError(f"the score of sample {wrong} is NaN or infinite.")

    def fingerprint(self, sample: int) -> bytes:
        """A digest of one sample's inputs: the same whatever samples are beside it."""
        if not self._prints:
            self._prints = self._digests()
        return self._prints[sample]

    def _digests(self) -> list[bytes]:
        """Those of all samples: each leaf is brought to the CPU once."""
        digests = [hashlib.sha256() for _ in range(len(self))]
        for path, leaf in leaves(self.inputs):
            said = f"{path}\0{leaf.dtype}\0{tuple(leaf.shape[1:])}\0".encode()
            rows = leaf.detach().cpu().contiguous().reshape(len(self), leaf[0].numel()).view(torch.uint8).numpy()
            for digest, row in zip(digests, rows, strict=True):
                digest.update(said)
                digest.update(row.data)
        return [digest.digest() for digest in digests]


def subject(model: Any, inputs: Any, target: Any, **settings: Any) -> Subject:
    """Checks and makes a subject.

    Raises:
        InputError: the inputs cannot be evaluated on.
    """
    inputs, _ = admit(model, inputs, "auto")
    found = leaves(inputs)
    counts = {leaf.shape[0] if leaf.ndim else 0 for _, leaf in found}
    if len(counts) != 1 or 0 in counts:
        raise InputError(
            f"evaluation takes samples one by one, so each input needs them along its first axis; got lengths "
            f"{sorted(counts)}. Pass what all samples share in forward_kwargs."
        )
    of = settings.get("of", "logit")
    if not callable(of) and of not in OF:
        raise InputError(f"of must be one of {', '.join(map(repr, OF))}, or a function of the output; got {of!r}.")
    labels = settings.pop("labels", None)
    labels = labels if labels is not None else known_labels(model)
    return Subject(model, inputs, _main(inputs), target, labels=labels, **settings)


def batch(inputs: Any) -> int:
    """The number of rows."""
    return next(leaf.shape[0] for _, leaf in leaves(inputs))


def read(output: Any, of: str | Callable[[Tensor], Tensor]) -> Any:
    """The output as logits, probabilities, log-probabilities or log odds over its last axis of classes.

    An output of one number per sample is the logit of a yes-or-no decision.
    """
    if callable(of):
        return of(output)
    if of == "logit":
        return output
    if not isinstance(output, Tensor) or not output.is_floating_point():
        raise InputError(f"of={of!r} needs logits; the model returned a {type(output).__name__}.")
    if output.ndim < 2 or (output.ndim == 2 and output.shape[1] == 1):
        return {
            "probability": output.sigmoid,
            "log_probability": lambda: torch.nn.functional.logsigmoid(output),
            "log_odds": lambda: output,
        }[of]()
    axis = 1 if output.ndim in (2, 4) else -1  # (N, classes), (N, classes, H, W); (N, T, classes)
    logs = output.log_softmax(axis)
    if of == "log_probability":
        return logs
    return logs.exp() if of == "probability" else logs - torch.log(-torch.expm1(logs.clamp(max=-1e-12)))


def _main(inputs: Any) -> str:
    """The leaf that is changed: that of a known name, else the first with floating-point numbers, else the first."""
    found = leaves(inputs)
    if isinstance(inputs, Mapping):
        for name in _IDS:
            if name in inputs:
                return f"inputs[{name!r}]"
    return next((path for path, leaf in found if leaf.is_floating_point()), found[0][0])


def _picked(target: Any, samples: Tensor) -> Any:
    """The target of some rows."""
    if isinstance(target, Contrast):
        return Contrast(_picked(target.positive, samples), _picked(target.negative, samples))
    return EntryTarget(target.at[samples.cpu()]) if isinstance(target, EntryTarget) else target


def targets_of(target: Any, samples: Sequence[int], count: int) -> Any:
    """The targets of some of `count` samples. A list has one per sample; any other target is the same for all."""
    if isinstance(target, Contrast):
        return Contrast(targets_of(target.positive, samples, count), targets_of(target.negative, samples, count))
    if hasattr(target, "__array__"):
        target = torch.as_tensor(target)
        target = target.tolist() if target.ndim else int(target)
    return [target[n] for n in samples] if isinstance(target, list) and len(target) == count else target

"""What the engine remembers of a tensor that carries relevance: a note, kept as an attribute of the tensor itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from relprop.engine.run import Run


class Note:
    """What the engine remembers of a live tensor: its run, its elementwise origin, the layer that made it.

    It holds for the numbers the tensor had then: `version` tells whether it was written into since, be it through a view.
    """

    __slots__ = (
        "gate",
        "input",
        "layer",
        "run",
        "scaled",
        "scan",
        "scores",
        "source",
        "source_version",
        "statistic",
        "step",
        "suspects",
        "version",
    )

    def __init__(self, run: Run) -> None:
        self.run = run
        self.version = 0
        self.source: Tensor | None = None
        self.source_version = 0
        self.step: Any = None
        self.layer: Any = None
        self.input: Tensor | None = None
        self.scaled: tuple[Any, Tensor] | None = None
        self.statistic = False
        self.gate = 0
        self.scan: Any = None
        self.scores = False
        self.suspects: frozenset[Any] = frozenset()


def note_of(tensor: Tensor) -> Note | None:
    """The engine's note on a tensor, if it has one."""
    return getattr(tensor, "_relprop", None)


def noted(run: Run, tensor: Tensor) -> Note:
    """The note of this run on a live tensor, a new one where it has none."""
    note = note_of(tensor)
    if note is None or note.run is not run:
        note = renew(run, tensor)
    return note


def adopt(run: Run, result: Any) -> None:
    """Notes on all live tensors of a result that an operation of this run returned them."""
    if isinstance(result, Tensor):
        if result.requires_grad:
            noted(run, result).version = result._version
    elif isinstance(result, (list, tuple)):
        for item in result:
            adopt(run, item)
    elif isinstance(result, dict):
        for item in result.values():
            adopt(run, item)


def renew(run: Run, tensor: Tensor) -> Note:
    """A new note on a live tensor: what was noted before is forgotten."""
    note = tensor._relprop = Note(run)  # type: ignore[attr-defined]
    note.version = tensor._version
    return note


def begin(run: Run, tensor: Tensor) -> Tensor:
    """A tensor that carries relevance into the run, with the values of a leaf."""
    live = tensor.clone()
    _metadata(live.grad_fn)["relprop"] = run
    renew(run, live)
    if run.recorder is not None:
        run.recorder.start(live, sink=run.is_sink(tensor))
    return live


def descends(run: Run, tensor: Tensor) -> bool:
    """Whether a tensor's history leads to this run's inputs."""
    stack, seen = [tensor.grad_fn], set()
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if _metadata(node).get("relprop") is run or id(getattr(node, "variable", None)) in run.inputs:
            return True
        stack += [child for child, _ in node.next_functions]
    return False


def _metadata(node: Any) -> dict[str, Any]:
    """The dictionary autograd keeps with each node."""
    return node.metadata


def suspects_of(live: list[Tensor]) -> frozenset[Any]:
    """On what it depends whether all of some tensors are constants; empty where one is none for sure."""
    each = [frozenset() if (note := note_of(t)) is None else note.suspects for t in live]
    return frozenset().union(*each) if all(each) else frozenset()


def suspect(suspects: frozenset[Any], live: list[Tensor], result: Any) -> None:
    """What is made of nothing but tensors that may turn out to be constants may turn out to be one."""
    for t in result if isinstance(result, (list, tuple)) else (result,):
        note = note_of(t) if isinstance(t, Tensor) else None
        if note is not None and (not note.suspects or any(t is source for source in live)):
            note.suspects = suspects

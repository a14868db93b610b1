"""The torch function mode: the door every operation passes, and the dispatch to its handler."""

from __future__ import annotations

import types
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from relprop.composites.composite import UNDECIDED
from relprop.composites.places import Place
from relprop.engine import applied
from relprop.engine.functions import custom, scaled
from relprop.engine.registry import DEFAULTS, FUNCTION, LINEAR, REFUSED, SILENT, TABLE, Entry, Handler, lookup
from relprop.engine.run import Note, Run, note_of, replaying, saved_elsewhere
from relprop.engine.spelling import writes
from relprop.engine.tokens import Lookup, follow, positions_of
from relprop.errors import ModelStateError, UnsupportedOperationError
from relprop.numerics import recording
from relprop.rules import Block, Constant, Native, Stabilise, Zero
from relprop.rules.base import WEIGHTED


class Call:
    """One call of an operation, as its handler sees it. `call()` runs the operation itself."""

    __slots__ = ("args", "entry", "function", "inplace", "kwargs", "live", "place", "rule", "run")
    place: Place | None
    rule: Any

    def __init__(
        self,
        run: Run,
        entry: Entry,
        function: Callable[..., Any],
        args: tuple,
        kwargs: dict,
        live: list[Tensor],
        inplace: bool = False,
        again: Call | None = None,
    ):
        self.inplace = inplace  # whether the handler shall write into the first argument
        self.run = run
        self.entry = entry
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.live = live
        self.place = run.place(entry, len(live)) if again is None else again.place
        self.rule = (None if self.place is None else run.rule(self.place)) if again is None else again.rule

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The operation on these arguments, or on its own."""
        if args or kwargs:
            return self.function(*args, **kwargs)
        return self.function(*self.args, **self.kwargs)

    def relocate(self, family: str) -> None:
        """Takes the call for one of another family, now that its handler has looked at the operands."""
        if self.place is not None:
            self.run.forget(self.place)
        self.place = self.run.locate(self.entry, family)
        self.rule = self.run.rule(self.place)

    def error(self, what: str) -> UnsupportedOperationError:
        return self.run.refuse(self.entry, what, shapes(self.args))


class Made(Call):
    """A call of a custom autograd function that has returned: `call()` is the result, with its own way back."""

    __slots__ = ("value",)
    value: Tensor

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **kwargs) if args or kwargs else self.value


class Propagation(TorchFunctionMode):
    """Inside this mode autograd carries relevance: `R(x) = x * G(x)` with `G` in the gradient's place."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        run = self.run
        if run.checkpointed and replaying() and not (torch.is_grad_enabled() and saved_elsewhere()):
            return func(*args, **kwargs)  # a rule's own arithmetic
        entry = TABLE.get(func) or lookup(func)
        if entry is not None and entry.family == SILENT:
            if run.checkpointed and func in _BACKWARD:
                with self:  # what a checkpoint computes again must be seen
                    return _BACKWARD[func](*args, **kwargs)
            if not torch.is_grad_enabled():
                run.applications.note()
            result = ANSWERS.get(func, func)(*args, **kwargs)
            if run.ids:
                follow(run, func, False, args, kwargs, result)
            if (
                args
                and isinstance(args[0], Tensor)
                and isinstance(result, Tensor)
                and result is not args[0]
                and args[0].requires_grad
            ):
                run.cut(f"{entry.function.__name__} in {run.where()}")
                return result.detach() if result.requires_grad else result
            return result
        live: list[Tensor] = []
        given, args = args, tuple(self._door(a, live) for a in args)
        kwargs = {key: self._door(a, live) for key, a in kwargs.items()}
        if not live or not torch.is_grad_enabled():
            if live and run.applications.note():
                if writes(func) and note_of(args[0]) is not None:
                    args[0]._relprop = None  # what a custom function writes into, it may return
            elif live:
                run.cut(f"{getattr(func, '__name__', func)} without gradients (no_grad) in {run.where()}")
            if entry is not None and getattr(entry.handler, "always", False):
                result = entry.handler(Call(run, entry, func, args, kwargs, live), *args, **kwargs)
                self._adopt(result)
            else:
                result = func(*args, **kwargs)
            if not live:
                written = args[0] if args and (writes(func) or kwargs.get("inplace")) else kwargs.get("out")
                run.derive(result, (*args, *kwargs.values()), written)
            if run.ids and entry is not None:
                follow(run, func, entry.family == "structure", args, kwargs, result)
            # as p.to(p.device) is p, and no constant beside it
            return given[0] if args and result is args[0] else result
        if torch._C._are_functorch_transforms_active():
            raise self._transformed()
        if kwargs.get("out") is not None:
            raise UnsupportedOperationError(
                f"{getattr(func, '__name__', func)}(out=...) in {run.where()}: relevance cannot follow a result that "
                "is written into another tensor. Use the returned value instead of out=."
            )
        suspects = _common(live) if run.suspecting else frozenset()  # before what is written into changes
        if entry is None:
            result = self._unknown(func, args, kwargs)
        elif entry.family == REFUSED:
            result = self._unknown(func, args, kwargs, entry.reason)
        else:
            result = self._known(entry, func, args, kwargs, live)
        self._adopt(result)
        if run.suspecting:
            _suspect(suspects, live, result)
        if run.recorder is not None:
            family = "other" if entry is None else entry.family
            inplace = kwargs.get("inplace") or writes(func) or (entry is not None and entry.spelling.inplace)
            written = args[0] if inplace and args else None
            run.recorder.record(family, getattr(func, "__name__", str(func)).strip("_"), run.where(), (result, written))
        return result

    def _known(self, entry: Entry, func: Any, args: tuple, kwargs: dict, live: list[Tensor]) -> Any:
        inplace = entry.spelling.inplace or bool(kwargs.get("inplace"))
        if entry.spelling.reflected:
            # Tensor.__rsub__(self, other) is other - self; the handler runs the main spelling.
            method = func
            args, func = (args[1], args[0], *args[2:]), lambda a, b, *rest: method(b, a, *rest)
            func.__name__ = entry.function.__name__
        if inplace:
            return self._inplace(entry, func, args, kwargs, live)
        return self._handle(Call(self.run, entry, func, args, kwargs, live))

    def _handle(self, call: Call) -> Any:
        if isinstance(call.rule, Native) and not (self.run.nz_hidden and call.entry.family in WEIGHTED):
            return call()
        if isinstance(call.rule, Constant) and call.entry.family != "softmax":
            return _map(lambda t: t.detach(), call())
        if isinstance(call.rule, Block):
            return _map(lambda t: scaled(t, 0.0).clone(), call())
        result = call.entry.handler(call, *call.args, **call.kwargs)
        rule = call.rule
        if isinstance(rule, Stabilise):
            return _map(
                lambda t: custom(t, lambda: t.detach().clone(), rule.propagate) if t.requires_grad else t, result
            )
        return result

    def _inplace(self, entry: Entry, func: Any, args: tuple, kwargs: dict, live: list[Tensor]) -> Any:
        """In place: natively where the native gradient is the rule, else computed beside and written back."""
        target = args[0]
        kwargs = {key: value for key, value in kwargs.items() if key != "inplace"}
        options = {} if entry.spelling.inplace else {"inplace": True}
        call = Call(self.run, entry, func, args, kwargs | options, live, inplace=True)
        if call.rule is None or call.rule is UNDECIDED or isinstance(call.rule, (Zero, Native)):
            if self._linear(entry, target, live):
                self._preserve(target)
                result = func(*args, **kwargs)
                self._renew(target)
                return result
            if getattr(entry.handler, "inplace", False) and not self.run.nz:
                result = entry.handler(call, *call.args, **call.kwargs)
                if result is not NotImplemented:
                    self._renew(target)
                    return result
        self._preserve(target)
        before = target.clone()
        if target.requires_grad:
            before._relprop = note_of(target) or Note(self.run)
        main = entry.function if entry.spelling.inplace else func
        args = (before, *args[1:])
        live = [before if t is target else t for t in live]
        result = self._handle(Call(self.run, entry, main, args, kwargs, live, again=call))
        note = note_of(result)
        target.copy_(result)
        self._renew(target)
        if note is not None and (
            note.source is not None or note.layer is not None or note.scaled is not None or note.gate
        ):
            target._relprop = note
        return target

    def _linear(self, entry: Entry, target: Tensor, live: list[Tensor]) -> bool:
        """Whether torch's own in-place operation has the gradient that relevance needs."""
        if entry.family in ("structure", "selection"):
            return True
        note = note_of(target)
        if len(live) == 1 and note is not None and (note.layer is not None or note.scaled is not None):
            return False  # a constant may merge with the layer that made the target
        return (entry.family == "sum" and not self.run.nz) or (
            entry.family == "product" and len(live) == 1 and live[0] is target
        )

    def _preserve(self, target: Any) -> None:
        """Before a tensor is overwritten: what a layer's rule still needs of it is copied."""
        note = note_of(target) if isinstance(target, Tensor) else None
        if note is not None and note.layer is not None:
            note.layer.preserve()

    def _renew(self, target: Any) -> None:
        if isinstance(target, Tensor) and target.requires_grad:
            target._relprop = Note(self.run)  # type: ignore[attr-defined]

    def _door(self, value: Any, live: list[Tensor]) -> Any:
        """Parameters become constants; live tensors are collected."""
        if isinstance(value, Tensor):
            if value.is_inference():
                value = value.clone()
            if torch._C._functorch.is_functorch_wrapped_tensor(value):
                if _innermost(value).requires_grad:
                    raise self._transformed()
                return value
            if not value.requires_grad:
                return value
            note = note_of(value)
            if note is not None and note.run is self.run:
                if note.layer is not None:
                    note.layer.readers += 1
                live.append(value)
                return value
            return self._stranger(value, live)
        if isinstance(value, (list, tuple)):
            items = [self._door(item, live) for item in value]
            if isinstance(value, list):
                return items
            return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
        if isinstance(value, dict):
            return {key: self._door(item, live) for key, item in value.items()}
        return value

    def _transformed(self) -> UnsupportedOperationError:
        return UnsupportedOperationError(
            f"a torch.func transform (vmap, grad, jvp, ...) runs in {self.run.where()}: relevance cannot be "
            "followed through it. Write that part of the model for a batch, without the transform."
        )

    def _stranger(self, value: Tensor, live: list[Tensor]) -> Tensor:
        """A live tensor that no operation of this run returned: a parameter, an alias, or a custom function's output."""
        if id(value) in self.run.inputs:
            live.append(value)
            return value
        if value.is_leaf:
            if not self.run.adopt or isinstance(value, nn.Parameter):
                constant = value.detach()
                self.run.constants[id(constant)] = constant
                return constant
        elif not self.run.adopt and not self._descends(value):
            return value.detach()
        maker = getattr(type(value.grad_fn), "_forward_cls", None)
        written = value._version > 0 and (value._is_view() or type(value.grad_fn).__name__ == "CopySlices")
        if maker is not None and _full_name(maker) not in LINEAR:
            entry = TABLE.get(maker)
            if entry is not None and entry.family == REFUSED:
                self._unseen(value, maker.__qualname__, f"{_full_name(maker)}: {entry.reason}")
            if not torch.is_grad_enabled() or self.run.applications.note():  # inside one: met when that has returned
                live.append(value)
                return value
            self._applied(value, maker)
            if not value.requires_grad:
                return value
        elif maker is None and not (written or self.run.adopt or replaying()):
            self._unseen(value, type(value.grad_fn).__name__, _COMPILED)
        note = note_of(value)
        if note is None or note.run is not self.run:
            value._relprop = Note(self.run)  # type: ignore[attr-defined]
        elif note.layer is not None:
            note.layer.readers += 1
        live.append(value)
        return value

    def _applied(self, value: Tensor, maker: Any) -> None:
        """Gives what a custom autograd function returned the way back of an operation of its family."""
        entry = TABLE.get(maker)
        if entry is not None and recording():
            raise UnsupportedOperationError(
                f"{maker.__module__}.{maker.__qualname__} in {self.run.where()} is a custom autograd.Function that was "
                "registered: it may compute where no graph can follow, which would freeze its numbers. Use "
                "relprop.attribute instead of relprop.compile."
            )
        native = entry is not None and entry.handler is DEFAULTS["structure"]
        found = self.run.applications.made(value)
        # a checkpoint within another gets its input back as a new tensor; what made it was seen the first time
        if found is None and (native or replaying()):
            return
        if found is None:
            lost = "its arguments are not known: no torch operation that runs inside its forward could be seen"
            self._unseen(value, maker.__qualname__, applied.advice(maker, lost, entry is not None))
            return
        if any(a is value for a in found.args):
            if not native:
                self._unseen(
                    value, maker.__qualname__, applied.advice(maker, "it writes into its argument", entry is not None)
                )
            return
        live: list[Tensor] = []
        args = tuple(self._door(a, live) for a in found.args)
        if native and list(map(applied.edge_or_none, live)) == [edge for edge in found.edges if edge[0] is not None]:
            return
        if value._is_view():
            self._unseen(value, maker.__qualname__, applied.advice(maker, "it returns a view", entry is not None))
            return
        call = Made(self.run, entry or Entry(maker, "structure", DEFAULTS[FUNCTION]), maker.apply, args, {}, live)
        call.value = value
        try:
            result = call(*args) if native else self._handle(call)
        except applied.Invisible as error:
            self._unseen(value, maker.__qualname__, applied.advice(maker, str(error), False))
            return
        result = result[value.output_nr] if isinstance(result, tuple) else result
        if result is not value:
            _replace(value, result)
        if self.run.recorder is not None:
            family = "other" if entry is None else entry.family
            self.run.recorder.record(family, maker.__qualname__, self.run.where(), value)

    def _unseen(self, value: Tensor, name: str, what: str) -> None:
        """Refuses a tensor whose making no mode can see."""
        if self.run.strict:
            raise UnsupportedOperationError(
                f"in {self.run.where()} a tensor of shape {tuple(value.shape)} was made by {what}"
            )
        self.run.unknown[name] += 1

    def _descends(self, value: Tensor) -> bool:
        """Whether a tensor's history leads to this run's inputs."""
        stack, seen = [value.grad_fn], set()
        while stack:
            node = stack.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            if _metadata(node).get("relprop") is self.run or id(getattr(node, "variable", None)) in self.run.inputs:
                return True
            stack += [child for child, _ in node.next_functions]
        return False

    def _adopt(self, result: Any) -> None:
        if isinstance(result, Tensor):
            if result.requires_grad:
                note = note_of(result)
                if note is None or note.run is not self.run:
                    result._relprop = Note(self.run)  # type: ignore[attr-defined]
        elif isinstance(result, (list, tuple)):
            for item in result:
                self._adopt(item)
        elif isinstance(result, dict):
            for item in result.values():
                self._adopt(item)

    def _unknown(self, func: Any, args: tuple, kwargs: dict, reason: str = "") -> Any:
        name = getattr(func, "__name__", str(func))
        if self.run.strict:
            register = (  # a reason with a colon gives advice of its own
                f'If you know how relevance passes it: relprop.register({_qualified(func)}, family="structure") where it '
                'is linear, "activation" where it is elementwise. '
            )
            raise UnsupportedOperationError(
                f"{name} in {self.run.where()}, given {shapes(args)}: {reason or 'it is in no family of operations'}. "
                f"{'' if ':' in reason else register}Or pass strict=False to use its gradient."
            )
        self.run.unknown[name] += 1
        return func(*args, **kwargs)


_COMPILED = (
    "code that PyTorch's function modes cannot see: a TorchScript function or a C++ extension. Use the Python function it "
    "was made from, or pass strict=False to use its gradient."
)


def _replace(value: Tensor, result: Tensor) -> None:
    """Gives a tensor the history of another that equals it."""
    note = note_of(result)
    value.detach_()
    if result.requires_grad:
        value.copy_(result)
        if note is not None:
            value._relprop = note  # type: ignore[attr-defined]
            if note.layer is not None:
                note.layer.output = weakref.ref(value)


def unfolded(function: Any) -> Any:
    """A copy of one of torch's functions that runs its own body inside a mode, so that each of its steps is seen."""
    seen = {**function.__globals__, "has_torch_function": lambda *_: False}
    copy = types.FunctionType(function.__code__, seen, function.__name__, function.__defaults__, function.__closure__)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def _common(live: list[Tensor]) -> frozenset[Any]:
    """On what it depends whether all of some tensors are constants; empty where one is none for sure."""
    each = [frozenset() if (note := note_of(t)) is None else note.suspects for t in live]
    return frozenset().union(*each) if all(each) else frozenset()


def _suspect(suspects: frozenset[Any], live: list[Tensor], result: Any) -> None:
    """What is made of nothing but tensors that may turn out to be constants may turn out to be one."""
    for t in result if isinstance(result, (list, tuple)) else (result,):
        note = note_of(t) if isinstance(t, Tensor) else None
        if note is not None and (not note.suspects or any(t is source for source in live)):
            note.suspects = suspects


ANSWERS: dict[Any, Callable[..., Any]] = {}
"""Other answers to silent operations, for code that would refuse what is done here."""


_BACKWARD: dict[Any, Any] = {
    torch.autograd.grad: unfolded(torch.autograd.grad),
    Tensor.backward: torch.autograd.backward,
}


def _innermost(value: Tensor) -> Tensor:
    """The tensor that torch.func transforms wrapped."""
    while torch._C._functorch.is_functorch_wrapped_tensor(value):
        value = torch._C._functorch.get_unwrapped(value)
    return value


def begin(run: Run, tensor: Tensor) -> Tensor:
    """A tensor that carries relevance into the run, with the values of a leaf."""
    live = tensor.clone()
    _metadata(live.grad_fn)["relprop"] = run
    live._relprop = Note(run)  # type: ignore[attr-defined]
    if run.recorder is not None:
        run.recorder.start(live)
    return live


def always(handler: Handler) -> Handler:
    """Marks a handler that wants to see its operation also where no operand carries relevance."""
    handler.always = True  # type: ignore[attr-defined]
    return handler


def unfolds(handler: Handler) -> Handler:
    """Marks a handler that runs the visible steps its operation stands for: rules act on these alone."""
    handler.unfolds = True  # type: ignore[attr-defined]
    return handler


def looked_up(run: Run, ids: Tensor, rows: Tensor) -> Tensor:
    """The rows of a table named by `ids`: where these come from an input, they start to carry relevance."""
    positions = positions_of(ids, run)
    if not torch.is_grad_enabled() or (positions is None and not run.positions):
        return rows
    if positions is None:
        return rows if replaying() else begin(run, run.sink(rows))
    leaf = rows.detach().requires_grad_()
    if not replaying():
        run.lookups.append(Lookup(positions, leaf))
    return begin(run, leaf)


def _metadata(node: Any) -> dict[str, Any]:
    """The dictionary autograd keeps with each node."""
    return node.metadata


def refuse_training(what: str, run: Run) -> ModelStateError:
    return ModelStateError(
        f"{what} in {run.where()} is in training mode: call model.eval() before explaining a decision."
    )


def shapes(args: Any) -> str:
    """The shapes of an operation's operands, for messages."""
    if isinstance(args, Tensor):
        return str(tuple(args.shape))
    if isinstance(args, (list, tuple)):
        return ", ".join(text for text in map(shapes, args) if text) or "no tensor"
    return ""


def _qualified(func: Any) -> str:
    try:
        return torch.overrides.resolve_name(func) or getattr(func, "__name__", str(func))
    except Exception:
        return str(func)


def _full_name(kind: Any) -> str:
    return f"{getattr(kind, '__module__', '')}.{getattr(kind, '__qualname__', '')}"


def _map(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, (list, tuple)):
        return type(value)(_map(change, item) for item in value)
    return value


__all__ = [
    "ANSWERS",
    "Call",
    "Made",
    "Propagation",
    "always",
    "begin",
    "looked_up",
    "refuse_training",
    "shapes",
    "unfolded",
    "unfolds",
]

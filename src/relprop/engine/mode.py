"""The torch function mode. Every operation of a model passes through it to its handler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from relprop.engine.again import as_function_of, on_a_copy
from relprop.engine.call import Call
from relprop.engine.cuts import BY_ENTRY, traced
from relprop.engine.data import SET, assign
from relprop.engine.door import SIMPLE, operands, write_inside
from relprop.engine.gradients import HOOKS, TAKES, hooked, keep_plain, own, pass_by, take, without_plain
from relprop.engine.handling import handle
from relprop.engine.inplace import inplace
from relprop.engine.integer_inputs import follow
from relprop.engine.joining import SUMS, changed_part, joined_by_write, kept, part_written, write_of
from relprop.engine.messages import called, transformed, unknown, written_out
from relprop.engine.notes import NOTE_NAME, Note, adopt, note_of, renew
from relprop.engine.overwritten import EXPOSES, SHARES, expose, seen, share, unseen
from relprop.engine.registry import REFUSED, SILENT, TABLE, Entry, lookup
from relprop.engine.replay import replaying
from relprop.engine.roles import COPY, SUMMED, carry, carry_constant, copies, give, itself, spread
from relprop.engine.rows import apart
from relprop.engine.run import Run
from relprop.engine.sign_masks import keep_sign, rectifier
from relprop.engine.spelling import writes
from relprop.engine.tensor_attributes import POSITIONS
from relprop.engine.tensors import is_live
from relprop.engine.traits import FIRST, MOVES, SAME
from relprop.torch_private.calls import unfolded
from relprop.torch_private.compiled import skipped
from relprop.torch_private.recorded import recording
from relprop.torch_private.state import transforms_active

_BACKWARD: dict[Any, Any] = {
    torch.autograd.grad: unfolded(torch.autograd.grad),
    Tensor.backward: torch.autograd.backward,
}


class Propagation(TorchFunctionMode):
    """Inside this mode autograd carries relevance: `R(x) = x * G(x)`, with `G` in the gradient's place.

    Args:
        run: the run.
        of_model: whether the model's own code runs inside, whose graph breaks are noted.
    """

    def __init__(self, run: Run, of_model: bool = True) -> None:
        super().__init__()
        self.run, self.of_model = run, of_model

    @skipped
    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        run = self.run
        if run.sites.journal.active and replaying() and not (torch.is_grad_enabled() and run.sites.journal.inside()):
            return func(*args, **kwargs)  # a rule's own arithmetic
        entry = TABLE.get(func) or lookup(func)
        if kwargs and kwargs.get("generator") is not None:
            run.chance.uses(kwargs["generator"])
        if entry is not None and entry.family == SILENT:
            if (
                entry.tests.query and torch.is_grad_enabled()
            ):  # inside a custom function any operation shows its arguments
                return func(*args, **kwargs)
            return self._silent(entry, func, args, kwargs)
        if run.trace.recorder is not None and args and (writes(func) or kwargs.get("inplace")):
            run.trace.recorder.preserve(args[0])
        live: list[Tensor] = []
        given = operands(run, args, live)
        if kwargs and not SIMPLE.issuperset(map(type, kwargs.values())):
            options = kwargs.values()
            if (entered := operands(run, options, live)) is not options:
                kwargs = dict(zip(kwargs, entered, strict=True))
        if live:
            if run.gradients.any_plain:
                given, kwargs = without_plain(run, given), without_plain(run, kwargs)
            if torch.is_grad_enabled():
                return self._propagating(entry, func, given, kwargs, live)
        result = self._constant(entry, func, given, kwargs, live)
        # p.to(p.device) must return p itself, not the constant that stands for it
        return args[0] if args and result is given[0] else result

    @skipped
    def _silent(self, entry: Entry, func: Any, args: tuple, kwargs: dict) -> Any:
        """Answers an operation without relevance, such as a shape or a comparison."""
        run = self.run
        if func in TAKES and own(run):
            return take(run, func, args, kwargs)
        if func in HOOKS and args[0].requires_grad and hooked(run):
            return pass_by(func, args, kwargs)
        if func == SET:
            return assign(run, *args)
        if run.sites.journal.active and func in _BACKWARD:
            with self:  # the mode must see a checkpoint's recomputation
                return _BACKWARD[func](*args, **kwargs)
        # what runs inside a custom function does not count
        inside = not torch.is_grad_enabled() and run.functions.note()
        result = (func if inside or entry.handlers.answer is None else entry.handlers.answer)(*args, **kwargs)
        if run.inputs.ids:
            follow(run, func, False, args, kwargs, result)
        if kwargs.get("requires_grad") and not run.inputs.adopt:
            keep_plain(run, result)  # a fresh tensor of which the model will take a gradient
            return result
        if run.writes.shared and func in EXPOSES and args and isinstance(args[0], Tensor):
            expose(run, args[0], func)
        run.model.note_answer(func, args, kwargs, result, run.inputs.live)
        operand = args[0] if args else None
        if isinstance(operand, nn.Parameter) and id(operand) not in run.inputs.live:
            return result.detach() if result is not operand and is_live(result) else result
        if isinstance(operand, Tensor) and result is not operand and operand.requires_grad:
            if isinstance(result, Tensor):
                if func in SHARES:
                    share(run, args[0])
                result = result.detach() if result.requires_grad else result
                if not inside:  # the function's result is met after it has returned
                    self._cut(func, args[0], result)
                return result
            if not inside and self.of_model:
                run.trace.cuts.note(called(func), run.where, args[0], result)
            if isinstance(result, tuple) and type(result) is not torch.Size and _any_live(result):
                run.trace.severed.append(f"{called(func)} in {run.where()}")
                parts = [t.detach() if isinstance(t, Tensor) else t for t in result]
                return tuple(parts) if type(result) is tuple else type(result)(parts)  # one of torch's named tuples
        return result

    def _cut(self, func: Any, operand: Tensor, result: Tensor, how: str = "") -> None:
        """Notes a graph break. A cast or rounded tensor may hold ids that an embedding looks up."""
        run = self.run
        if self.of_model:
            run.trace.cut(called(func), how, operand, result)
        if called(func).strip("_") in BY_ENTRY and result.shape == operand.shape and not recording():
            found = traced(run, operand)
            if found is not None:
                run.inputs.found_ids()
                POSITIONS.put(result, found)

    @skipped
    def _constant(self, entry: Entry | None, func: Any, args: tuple, kwargs: dict, live: list[Tensor]) -> Any:
        """Runs an operation without relevance in its result: no operand is live, or gradients are off."""
        run = self.run
        inside = bool(live) and run.functions.note()
        written = _written(entry, func, args, kwargs)
        if inside:
            if writes(func) and note_of(args[0]) is not None:
                write_inside(args[0])
        elif live:
            run.trace.cut(called(func), " without gradients (no_grad)", live[0], live[0])
        if entry is not None and entry.on_constants:
            result = entry.handler(Call(run, entry, func, args, kwargs, live), *args, **kwargs)
            adopt(run, result)
        else:
            result = func(*args, **kwargs)
        if entry is not None and written is None:
            carry_constant(run, entry, func, args, kwargs, result)
        if live:
            run.model.note_data(result)
        else:
            if (
                (run.gradients.any_plain or kwargs.get("requires_grad"))
                and isinstance(result, Tensor)
                and result.requires_grad
            ):
                keep_plain(run, result)
            run.model.derive(result, (*args, *kwargs.values()), written)
            run.model.note_fixed(func, args, kwargs, result)
            if run.model.any_signs and entry is not None and SAME in entry.traits and args:
                keep_sign(result, args[0])
        if written is not None:
            if inside:
                seen(written, inside=True)  # what runs inside a custom function does not count
            else:
                unseen(run, func, written)
        if run.inputs.ids and entry is not None:
            follow(run, func, entry.family == "structure", args, kwargs, result)
        return result

    def _propagating(self, entry: Entry | None, func: Any, args: tuple, kwargs: dict, live: list[Tensor]) -> Any:
        """Runs an operation with live operands."""
        run = self.run
        if transforms_active():
            raise transformed(run)
        if kwargs and kwargs.get("out") is not None:
            raise written_out(run, func)
        if entry is None or entry.family == REFUSED:
            written = _written(entry, func, args, kwargs)
            result = self._unknown(func, args, kwargs, "" if entry is None else entry.reason)
            seen(written)
            adopt(run, result)
        else:
            if run.trace.recorder is not None:
                run.trace.recorder.meet(live)
            notes = []  # before an in-place write changes them
            for t in live:
                notes.append(getattr(t, NOTE_NAME, None))
            written, before, spelling = None, None, entry.spelling
            relu = rectifier(entry, func, args, kwargs) if run.model.any_signs else None
            if relu is not None:
                entry, args = relu.entry, relu.args
                if spelling.inplace:
                    written = args[0]
                    result = inplace(run, entry, relu.function, args, {}, live, relu.main)
                else:
                    result = handle(Call(run, entry, relu.main, args, {}, live))
            elif spelling.reflected:
                result = handle(Call(run, entry, *_turned(entry, func, args), kwargs, live))
            elif spelling.inplace or (kwargs and kwargs.get("inplace")):
                if not args:  # F.relu(input=x, inplace=True)
                    args, kwargs = (kwargs["input"],), {k: a for k, a in kwargs.items() if k != "input"}
                written = args[0]
                before = kept(entry, written, notes)
                result = inplace(run, entry, func, args, kwargs, live)
            else:
                result = handle(Call(run, entry, func, args, kwargs, live))
            self._note(entry, func, args, kwargs, live, notes, result, written, before)
        inputs = run.inputs
        asked = inputs.samples > 1 and not (inputs.mixing or inputs.sure or recording())
        if asked and not apart(inputs.samples, entry, args, kwargs, live, result):
            inputs.mix()
        if run.trace.recorder is not None and not replaying():
            family = "other" if entry is None else entry.family
            run.trace.recorder.record(family, called(func).strip("_"), run.where(), (result, written))
        return result

    def _note(
        self, entry: Entry, func: Any, args: tuple, kwargs: dict, live: list[Tensor], notes: list[Note | None], result: Any,
        written: Any, before: Tensor | None,
    ) -> None:  # fmt: skip
        """Notes what is known of a result. `before` is a copy of what was overwritten, where a role needs it."""
        run = self.run
        if written is not None:
            seen(written)
        if not isinstance(result, Tensor):
            adopt(run, result)
            if entry.function is torch.broadcast_tensors:
                run.model.note_broadcast(args, result)
        elif result.requires_grad:
            note: Note | None = getattr(result, NOTE_NAME, None)
            if note is None:
                setattr(result, NOTE_NAME, Note(run, result._version))
            elif note.run is not run:
                renew(run, result)
            else:
                note.version = result._version
        else:
            if FIRST in entry.traits and not {MOVES, SAME}.isdisjoint(entry.traits) and not _any_live(args[:1]):
                run.model.derive(result, args[:1], written)  # the live operand gave a shape or a dtype, but no numbers
            else:
                run.model.note_data(result)
            if run.model.any_signs and SAME in entry.traits and args:
                keep_sign(result, args[0])
            # a normaliser, or a constant by a rule, is not a break
            if _counts(result) or (kwargs and kwargs.get("rounding_mode") is not None):
                self._cut(func, live[0], result)
        made = args[0] if result is None and args else result  # x[...] = y returns nothing
        for name, value in entry.gives:
            give(made, name, value)
        if written is not None and entry.tests.overwrites is not None and copies(entry, args, live, made):
            carry(run, COPY, itself, live, notes, (live[0],), {}, made)
        else:
            again = func if written is None else on_a_copy(func)
            given = args if before is None else (before, *args[1:])
            traits = entry.traits
            if entry.tests.sums is not None:
                for note in notes:
                    if note is not None and note.roles is not None and not SUMMED.isdisjoint(note.roles):
                        traits = SUMS if entry.tests.sums(args, kwargs) else traits
            carry(run, traits, again, live, notes, given, kwargs, made)
        if written is not None and isinstance(written, Tensor):
            self._note_part(entry, func, args, kwargs, live, notes, written)

    def _note_part(
        self, entry: Entry, func: Any, args: tuple, kwargs: dict, live: list[Tensor], notes: list[Note | None],
        written: Tensor,
    ) -> None:  # fmt: skip
        """Notes what is known of a tensor of which a part was overwritten."""
        run, base = self.run, written._base
        whole = written if base is None else base
        overwrites = entry.tests.overwrites is not None
        write = write_of(run, args) if overwrites else None
        if base is not None:
            before = note_of(base)
            before = before if before is not None and before.run is run else None
            spread(run, written)
        else:
            before = next((note for t, note in zip(live, notes, strict=True) if t is written), None)
        if write is not None and whole.requires_grad:
            joined_by_write(run, whole, before, write)
        elif base is not None and before is not None and len(live) == 1:
            changed_part(run, base, before, written, as_function_of(func, written, args, kwargs), entry.traits)
        elif base is not None:
            part_written(run, whole, before, written)
        elif overwrites and len(args) == 3:
            part_written(run, whole, before, args[2], args[1])

    def _unknown(self, func: Callable[..., Any], args: tuple, kwargs: dict, reason: str) -> Any:
        if self.run.trace.strict:
            raise unknown(self.run, func, args, reason)
        self.run.trace.unfollowed(called(func), func, args, self.run.where(), reason)
        return func(*args, **kwargs)


def _turned(entry: Entry, method: Any, args: tuple) -> tuple[Any, tuple]:
    """`Tensor.__rsub__(self, other)` is `other - self`: the function and the operands of the main spelling, for the handler."""

    def func(a: Any, b: Any, *rest: Any) -> Any:
        return method(b, a, *rest)

    func.__name__ = entry.function.__name__
    return func, (args[1], args[0], *args[2:])


def steps_of(call: Call, of_model: bool = False) -> Propagation:
    """A context that follows each of the steps that an operation stands for; `of_model`: functions of the model are among them."""
    return Propagation(call.run, of_model)


def _any_live(results: tuple) -> bool:
    return any(isinstance(t, Tensor) and t.requires_grad for t in results)


def _counts(result: Any) -> bool:
    """Whether a result holds integers or booleans."""
    return isinstance(result, Tensor) and not result.is_floating_point() and not result.is_complex()


def _written(entry: Entry | None, func: Any, args: tuple, kwargs: dict) -> Any:
    """The tensor that an operation writes into; None if it makes new tensors."""
    if args and (kwargs.get("inplace") or (writes(func) if entry is None else entry.spelling.inplace)):
        return args[0]
    return kwargs.get("out")

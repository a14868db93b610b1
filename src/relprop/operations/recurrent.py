"""LSTM, GRU, RNN and their cells: opaque calls, rerun as their visible steps, with the gates as constants.

The gated operand carries the relevance, the gate none (Arras et al. 2017 and 2019). The weights of the content get the
rules of a composite as any linear layer does. The model continues with torch's own result.

Index letters: t step, b sample (at step t the first `sizes[t]` of a packed batch are still running), h hidden unit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from relprop.engine.call import Call
from relprop.engine.functions import grafted
from relprop.engine.mode import steps_of
from relprop.engine.notes import adopt
from relprop.engine.registry import register
from relprop.engine.run import Run
from relprop.engine.spelling import named
from relprop.engine.tensor_attributes import ELSEWHERE
from relprop.engine.traits import MOVES
from relprop.operations.gates import GATE
from relprop.operations.joint import Content, JointParameters, tanh
from relprop.operations.sample_axes import recurrent
from relprop.torch_private.state import without_torch_function

State = tuple[Tensor, ...]


@dataclass
class Weights(JointParameters):
    """The parameters of one layer in one direction, as torch lays them out."""

    projection: Tensor | None = None

    def rows(self, gates: int, chosen: Sequence[int]) -> Weights:
        """The parameters of some of the gates."""
        w, u, b, c = (
            None if t is None else torch.cat([t.chunk(gates)[n] for n in chosen])
            for t in (self.input, self.hidden, self.input_bias, self.hidden_bias)
        )
        assert w is not None and u is not None  # every layer has these
        return Weights(w, u, b, c, self.projection)


class Cell:
    """One kind of recurrent cell: the rows `content` carry relevance, the others make gates."""

    gates: int
    content: tuple[int, ...]

    def __init__(self, weights: Weights, run: Run) -> None:
        self.run = run
        self.joint = Content(weights.rows(self.gates, self.content), run)
        self.projection = weights.projection
        others = [n for n in range(self.gates) if n not in self.content]
        self.gating = weights.rows(self.gates, others) if others else None

    def prepare(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """The input's part of content and gates, for all steps at once, and the input itself."""
        given, x = self.joint.from_input(x)
        if self.gating is None:
            return given, x, None
        with without_torch_function():  # constants need no handling
            return given, x, F.linear(x.detach(), self.gating.input, self.gating.input_bias)

    def opened(self, x: Tensor | None, h: Tensor) -> list[Tensor]:
        """The gates at one step."""
        assert self.gating is not None and x is not None  # only cells with gates call this
        with without_torch_function():
            from_h = F.linear(h.detach(), self.gating.hidden, self.gating.hidden_bias)
            return list((x + from_h).sigmoid().chunk(self.gates - len(self.content), -1))

    def mixed(self, mix: Callable[[], Tensor]) -> Tensor:
        """Sums and products with constants: native, so the mode need not see them unless zeros carry relevance."""
        if self.run.sites.nz:
            return mix()
        with without_torch_function():
            y = mix()
            adopt(self.run, y)
        return y

    def step(self, given: Tensor, x: Tensor, gates: Tensor | None, state: State) -> State:
        raise NotImplementedError


class LSTM(Cell):
    """`c = f c + i tanh(g)`, `h = o tanh(c)`."""

    gates, content = 4, (2,)

    def step(self, given: Tensor, x: Tensor, gates: Tensor | None, state: State) -> State:
        h, c = state
        i, f, o = self.opened(gates, h)
        before, entering = c, self.joint.tanh(given, x, h)
        c = self.mixed(lambda: f * before + i * entering)
        leaving = tanh(self.run, c) if self.joint.secants_alone else torch.tanh(c)
        h = self.mixed(lambda: o * leaving)
        return (h if self.projection is None else F.linear(h, self.projection)), c


class GRU(Cell):
    """`n = tanh(x + r h)`, `h = (1 - z) n + z h`."""

    gates, content = 3, (2,)

    def step(self, given: Tensor, x: Tensor, gates: Tensor | None, state: State) -> State:
        (h,) = state
        r, z = self.opened(gates, h)
        n = self.joint.tanh(given, x, h, r)
        return (self.mixed(lambda: (1 - z) * n + z * h),)


class Tanh(Cell):
    gates, content = 1, (0,)

    def step(self, given: Tensor, x: Tensor, gates: Tensor | None, state: State) -> State:
        return (torch.tanh(self.joint(given, x, state[0])),)


class Relu(Cell):
    gates, content = 1, (0,)

    def step(self, given: Tensor, x: Tensor, gates: Tensor | None, state: State) -> State:
        return (torch.relu(self.joint(given, x, state[0])),)


def _run(
    cell: Cell, x: Tensor, sizes: list[int], state: State, reverse: bool, seen: list[State] | None = None
) -> tuple[Tensor, State]:
    """All steps in one direction over packed rows `x`: the output of each step, also packed, and the last state.

    If `seen` is given, the states of all steps are added to it, in the order of the sequence.
    """
    start, ended = state, []
    of_content, x, of_gates = cell.prepare(x)
    with without_torch_function():
        given = list(of_content.split(sizes))
    rows = list(x.split(sizes))
    gates = [None] * len(sizes) if of_gates is None else list(of_gates.split(sizes))
    outputs: list[Tensor] = []
    order = range(len(sizes) - 1, -1, -1) if reverse else range(len(sizes))
    running = sizes[order[0]]
    state = tuple(s[:running] for s in start)
    for t in order:
        if running > sizes[t]:
            ended.append(tuple(s[sizes[t] :] for s in state))
            state = tuple(s[: sizes[t]] for s in state)
        elif running < sizes[t]:
            state = tuple(torch.cat([s, s0[running : sizes[t]]]) for s, s0 in zip(state, start, strict=True))
        running = sizes[t]
        state = cell.step(given[t], rows[t], gates[t], state)
        outputs.append(state[0])
        if seen is not None:
            seen.insert(0 if reverse else len(seen), state)
    for rest in reversed(ended):
        state = tuple(torch.cat(pair) for pair in zip(state, rest, strict=True))
    return torch.cat(outputs[::-1] if reverse else outputs), state


STATES = ("steps", "cells")
"""The names of the states of a recurrent layer: what it hands to the next step, and the cell of an LSTM."""


def _asked(call: Call, layer: int, direction: int, alone: bool, states: int) -> dict[int, Callable[[Tensor], None]]:
    """Who asked for the states of one layer in one direction, by the number of the state."""
    found: dict[int, Callable[[Tensor], None]] = {}
    for n, name in enumerate(STATES[:states]):
        for called in (f"{name}_l{layer}{'_reverse' * direction}", *([name] if alone else [])):
            show = call.stepped(called)
            if show is not None:
                found[n] = show
    return found


def _show(call: Call, shown: dict[int, Callable[[Tensor], None]], seen: list[State], sizes: list[int]) -> None:
    if shown and len(set(sizes)) > 1:
        raise call.error(
            "the state at a step has no row for samples that have ended, so steps of packed sequences of several lengths "
            "cannot be named. Explain sequences of one length together."
        )
    for n, show in shown.items():
        for state in seen:
            show(state[n])


def _layers(flat: Sequence[Tensor], count: int, bias: bool) -> Iterator[Weights]:
    """The parameters of `count` layers and directions."""
    per = len(flat) // count
    for n in range(count):
        part = list(flat[n * per : (n + 1) * per])
        b, c = part[2:4] if bias else (None, None)
        yield Weights(part[0], part[1], b, c, part[-1] if per > (4 if bias else 2) else None)


def _own(call: Call, operand: Any) -> Any:
    """An operand as the model has it: which kernel torch takes depends on whether parameters require a gradient."""
    if isinstance(operand, (tuple, list)):
        return type(operand)(_own(call, item) for item in operand)
    return call.own(operand)


def stacked(make: type[Cell], states: int) -> Callable[..., Any]:
    """A stack of recurrent layers, dense or packed, in one or both directions."""

    def handler(call: Call, input: Tensor, second: Any, *rest: Any) -> Any:
        call.trait("recurrent")
        if call.weighs:
            raise call.error("weights=True cannot tell the weights of recurrent layers apart. Leave it out.")
        with torch.no_grad():
            native = call(*(_own(call, a) for a in call.args), **call.kwargs)
        packed = isinstance(second, Tensor) and not second.is_floating_point()
        if packed:
            hx, flat, bias, layers, dropout, training, bidirectional = rest
            batch_first, sizes, x = False, second.tolist(), input
        else:
            flat, bias, layers, dropout, training, bidirectional, batch_first = rest
            hx = second
        if training and dropout > 0 and layers > 1:
            raise call.training(f"{call.entry.function.__name__} with dropout")
        start: State = tuple(hx) if isinstance(hx, (tuple, list)) else (hx,)
        with steps_of(call), call.keeping_samples() if batch_first else nullcontext():
            if not packed:
                alone = input.ndim == 2
                x = input.unsqueeze(1) if alone else input.transpose(0, 1) if batch_first else input
                start = tuple(s.unsqueeze(1) if s.ndim == 2 else s for s in start)
                steps, batch = x.shape[:2]
                sizes = [batch] * steps
                x = x.flatten(0, 1)
            directions = 2 if bidirectional else 1
            finals: list[State] = []
            weights = _layers(flat, layers * directions, bias)
            for layer in range(layers):
                outputs = []
                for d in range(directions):
                    first = tuple(s[layer * directions + d] for s in start)
                    shown = _asked(call, layer, d, layers * directions == 1, states)
                    seen: list[State] | None = [] if shown else None
                    output, final = _run(make(next(weights), call.run), x, sizes, first, d == 1, seen)
                    _show(call, shown, seen or [], sizes)
                    outputs.append(output)
                    finals.append(final)
                x = torch.cat(outputs, -1) if bidirectional else outputs[0]
            ends = [torch.stack([final[n] for final in finals]) for n in range(states)]
            if not packed:
                x = x.unflatten(0, (steps, batch))
                x = x.squeeze(1) if alone else x.transpose(0, 1) if batch_first else x
                ends = [e.reshape(n.shape) for e, n in zip(ends, native[1:], strict=True)]
        results = tuple(grafted(n, h) if h.requires_grad else n for n, h in zip(native, (x, *ends), strict=True))
        for end in results[1:]:
            ELSEWHERE.put(end, True)
        return results

    return handler


def single(make: type[Cell], states: int) -> Callable[..., Any]:
    """One step of one layer."""

    def handler(call: Call, input: Tensor, hx: Any, *weights: Any, **kwargs: Any) -> Any:
        call.trait("recurrent")
        if call.weighs:
            raise call.error("weights=True cannot tell the weights of recurrent layers apart. Leave it out.")
        with torch.no_grad():
            native = call(*(_own(call, a) for a in call.args), **{k: _own(call, v) for k, v in kwargs.items()})
        named = dict(zip(("w_ih", "w_hh", "b_ih", "b_hh"), weights, strict=False)) | kwargs
        state: State = tuple(hx) if isinstance(hx, (tuple, list)) else (hx,)
        with steps_of(call):
            cell = make(Weights(named["w_ih"], named["w_hh"], named.get("b_ih"), named.get("b_hh")), call.run)
            state = cell.step(*cell.prepare(input), state)
        if states == 1:
            return grafted(native, state[0])
        return tuple(grafted(n, s) if s.requires_grad else n for n, s in zip(native, state, strict=True))

    return handler


for _name, _cell, _states in (("lstm", LSTM, 2), ("gru", GRU, 1), ("rnn_tanh", Tanh, 1), ("rnn_relu", Relu, 1)):
    _gives = {GATE: 1} if _cell in (Tanh, Relu) else {}  # whose states come out of an activation
    register(getattr(torch, _name), family="recurrent", handler=stacked(_cell, _states), gives=_gives, apart=recurrent)
    register(getattr(torch, f"{_name}_cell"), family="recurrent", handler=single(_cell, _states), gives=_gives)
register(*named("_pack_padded_sequence _pad_packed_sequence"), family="structure", traits={MOVES})

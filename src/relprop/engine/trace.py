"""What is reported of a run afterwards: graph breaks, unknown operations, what each operation absorbed."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from relprop.engine.cuts import Cuts
from relprop.engine.model_view import ModelView
from relprop.engine.recorder import Recorder
from relprop.engine.replay import replaying
from relprop.torch_private.calls import running_module


class Trace:
    """What is noticed during a run.

    Attributes:
        strict: whether an unknown operation is an error (else its native gradient is used and recorded).
        unknown: the operations that could not be followed, and how often each ran.
        severed: the last places where the graph broke, for messages.
        cuts: the graph breaks, with what is needed to tell which input was cut off.
        log: each unknown or refused operation, its arguments, place and reason; None without an observer.
        recorder: records what each operation absorbs.
        heads: who asked for the outputs of an attention's heads, by the identity of the attention's module.
        steps: who asked for the states of a recurrent layer, by the identity of its module and the name of the state.
        parts: who asked for a tensor that a splice makes, by its name.
    """

    def __init__(self, model: ModelView, strict: bool, recorder: Recorder | None, observed: bool = False) -> None:
        self._model = model
        self.strict = strict
        self.recorder = recorder
        self.unknown: Counter[str] = Counter()
        self.log: list[tuple[Callable[..., Any], tuple, str, str]] | None = [] if observed else None
        self.severed: deque[str] = deque(maxlen=8)
        self.cuts = Cuts()
        self.heads: dict[int, Callable[..., None]] = {}
        self.steps: dict[tuple[int, str], Callable[..., None]] = {}
        self.parts: dict[str, Callable[..., None]] = {}

    def cut(self, name: str, how: str, operand: Tensor, result: Any) -> None:
        """Remembers a graph break, for messages and to tell which input was cut off."""
        if replaying():
            return
        self.severed.append(f"{name}{how} in {self._model.where()}")
        self.cuts.note(f"{name}{how}", self._model.where, operand, result)

    def unfollowed(self, name: str, *seen: Any) -> None:
        """Counts an operation that could not be followed; `seen` is (function, arguments, place, reason), if known."""
        self.unknown[name] += 1
        if self.log is not None and seen:
            function, args, where, reason = seen
            self.log.append((function, args, where, reason))

    def show_heads(self, module: nn.Module, see: Callable[..., None]) -> None:
        """Asks for the outputs of the heads of an attention."""
        self.heads[id(module)] = see

    def attended(self, result: Tensor, arranged: Callable[[Tensor], Tensor] | None = None) -> None:
        """Shows the outputs of an attention's heads, (N, heads, T, features), to whoever asked in this module."""
        if self.heads and not replaying():
            see = self.heads.get(id(running_module()))
            if see is not None:
                see(result, arranged)

    def show_steps(self, module: nn.Module, name: str, see: Callable[..., None]) -> None:
        """Asks for a state of a recurrent layer at each step."""
        self.steps[id(module), name] = see

    def stepped(self, name: str) -> Callable[..., None] | None:
        """Who asked for this state of the module that now runs; None if nobody did."""
        return None if not self.steps or replaying() else self.steps.get((id(running_module()), name))

    def show_part(self, name: str, see: Callable[..., None]) -> None:
        """Asks for a tensor that a splice makes."""
        self.parts[name] = see

    def made_part(self, name: str, part: Tensor) -> None:
        """Shows a tensor that a splice made to whoever asked for it."""
        if name in self.parts:
            self.parts[name](part)

    @contextmanager
    def unattended(self) -> Iterator[bool]:
        """A context in which the outputs of heads are not shown. Its value is whether anybody asked for them."""
        wanted, self.heads = self.heads, {}
        try:
            yield bool(wanted)
        finally:
            self.heads = wanted

    def close(self) -> None:
        """Releases the graph."""
        self.heads.clear()
        self.parts.clear()
        self.steps.clear()
        self.cuts.close()
        if self.recorder is not None:
            self.recorder.close()

"""What a run leaves to be told: where the graph was cut, what was not known, what each operation absorbed."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from relprop.engine.cuts import Cuts
from relprop.engine.model_view import ModelView
from relprop.engine.recorder import Recorder
from relprop.engine.replay import replaying
from relprop.torch_private.calls import running_module


class Trace:
    """What is noticed while a run goes on.

    Attributes:
        strict: whether an unknown operation is an error (else its native gradient is used and recorded).
        unknown: the operations that no table knows, and how often each ran.
        severed: the last places where the graph was cut, for messages.
        cuts: the same, with what is needed to say which input was cut off.
        log: every operation that is not known, its arguments, where it ran and why it is refused; None where nobody observes.
        recorder: what records what each operation absorbs.
        heads: who asked for what the heads of an attention made, by the identity of the attention's module.
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

    def cut(self, name: str, how: str, operand: Tensor, result: Any) -> None:
        """Remembers where relevance could not follow: for messages, and to say which input it was."""
        if replaying():
            return
        self.severed.append(f"{name}{how} in {self._model.where()}")
        self.cuts.note(f"{name}{how}", self._model.where, operand, result)

    def attended(self, result: Tensor, arranged: Callable[[Tensor], Tensor] | None = None) -> None:
        """Shows what the heads of an attention made to whom asked for it in this module, (N, heads, T, features)."""
        if self.heads and not replaying():
            see = self.heads.get(id(running_module()))
            if see is not None:
                see(result, arranged)

    @contextmanager
    def unattended(self) -> Iterator[bool]:
        """While this lasts, nobody is shown what heads made; whether anybody asked for it."""
        wanted, self.heads = self.heads, {}
        try:
            yield bool(wanted)
        finally:
            self.heads = wanted

    def close(self) -> None:
        """Lets go of the graph."""
        self.heads.clear()
        self.cuts.close()
        if self.recorder is not None:
            self.recorder.close()

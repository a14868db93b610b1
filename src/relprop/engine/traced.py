"""Refuses an explanation inside code that records or transforms programs, and says what to use instead.

A trace would freeze the explanation of one input. A torch.func transform hides what the model does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from relprop.errors import TracedError
from relprop.torch_private.compiled import breaks_forbidden, constant_when_traced, unsupported
from relprop.torch_private.recorded import recording, traced_by_jit
from relprop.torch_private.state import transforms_active

_INSTEAD = (
    "Call relprop.attribute outside of it, on a batch, or the function that relprop.compile(model) makes, whose both passes "
    "are one graph; what is trained on relevance uses relprop.propagate, with create_graph=True."
)


def refuse_traced(inputs: Iterable[Any]) -> None:
    """Refuses to explain while something records or transforms the program.

    Raises:
        TracedError: something does.
    """
    what = ""
    if traced_by_jit():
        what = "torch.jit.trace records what runs, for other inputs as well"
    elif torch.compiler.is_exporting():
        what = "torch.export records what runs, for other inputs as well"
    elif recording():
        what = "make_fx records what runs, for other inputs as well"
    elif transforms_active():
        what = "a torch.func transform (vmap, grad, jvp, ...) runs, and hides what the model does"
    elif any(isinstance(one, torch.fx.Proxy) for one in inputs):
        what = "torch.fx.symbolic_trace gives the model a Proxy, which has no numbers"
    if what:
        raise TracedError(f"{what}; an explanation runs step by step. {_INSTEAD}")


@constant_when_traced
def whole_graph(name: str) -> bool:
    """Refuses if torch's compiler must make one graph without breaks (`fullgraph=True`, `torch.export`).

    The compiler calls this while it traces, as a function with a constant result. Elsewhere it does nothing.

    Raises:
        TracedError: it must. The error is also of the compiler's own class, because the compiler wraps all others.
    """
    if not breaks_forbidden():
        return False
    kind: Any = unsupported()

    class Refused(TracedError, kind):
        """A `TracedError` that torch's compiler passes on unchanged."""

        def __init__(self, said: str) -> None:
            kind.__init__(self, said)

        def __str__(self) -> str:
            return f"{name}: {self.message}"

    Refused.__name__ = Refused.__qualname__ = TracedError.__name__
    raise Refused(f"it runs step by step, and one graph without breaks was asked for. {_INSTEAD}")

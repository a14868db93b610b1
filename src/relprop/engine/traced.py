"""An explanation inside of something that records or transforms programs: refused, with what to use instead.

A trace would hold the explanation of one input, frozen; a transform of torch.func hides what the model does.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import torch

from relprop.errors import TracedError

_INSTEAD = (
    "Call relprop.attribute outside of it, on a batch, or the function that relprop.compile(model) makes, whose both passes "
    "are one graph; what is trained on relevance uses relprop.propagate, with create_graph=True."
)


def refuse_traced(inputs: Iterable[Any]) -> None:
    """Refuses to explain while something records or transforms the program.

    Raises:
        TracedError: it does.
    """
    what = ""
    if torch.jit.is_tracing():  # type: ignore[attr-defined]
        what = "torch.jit.trace records what runs, for other inputs as well"
    elif torch.compiler.is_exporting():
        what = "torch.export records what runs, for other inputs as well"
    elif _recording():
        what = "make_fx records what runs, for other inputs as well"
    elif _transforming():
        what = "a torch.func transform (vmap, grad, jvp, ...) runs, and hides what the model does"
    elif any(isinstance(one, torch.fx.Proxy) for one in inputs):
        what = "torch.fx.symbolic_trace gives the model a Proxy, which has no numbers"
    if what:
        raise TracedError(f"{what}; an explanation runs step by step. {_INSTEAD}")


def whole_graph(name: str) -> bool:
    """Refuses, where torch's compiler is asked for one graph without breaks (`fullgraph=True`, `torch.export`).

    The compiler calls this while it traces, as a function whose answer is constant. Elsewhere it does nothing.

    Raises:
        TracedError: one graph is asked for. It is an error of the compiler's kind as well: others it would wrap.
    """
    if not _breaks_forbidden():
        return False
    from torch._dynamo.exc import Unsupported

    class Refused(TracedError, Unsupported):
        """A `TracedError` that torch's compiler hands on as it is."""

        def __init__(self, said: str) -> None:
            Unsupported.__init__(self, said)

        def __str__(self) -> str:
            return f"{name}: {self.message}"

    Refused.__name__ = Refused.__qualname__ = TracedError.__name__
    raise Refused(f"it runs step by step, and one graph without breaks was asked for. {_INSTEAD}")


# What torch keeps to itself: each function says what it is for, and what is done where torch has it no more.

whole_graph._dynamo_marked_constant = True  # type: ignore[attr-defined]
"""As `torch.compiler.assume_constant_result` marks it, without loading the compiler, which takes a second."""


def _breaks_forbidden() -> bool:
    """Whether torch's compiler traces and may not break the graph. Where we cannot tell, its own error has to do."""
    module = sys.modules.get("torch._dynamo.symbolic_convert")
    try:
        tracer = module.InstructionTranslator.current_tx()  # type: ignore[union-attr]
        return bool(getattr(tracer, "one_graph", False) or getattr(tracer, "error_on_graph_break", False))
    except (AttributeError, AssertionError):
        return False


def _recording() -> bool:
    """Whether `make_fx` records; where we cannot tell, it records what it is given."""
    module = sys.modules.get("torch.fx.experimental.proxy_tensor")
    mode = getattr(module, "get_proxy_mode", None)
    return mode is not None and mode() is not None


def _transforming() -> bool:
    """Whether a transform of torch.func runs; where we cannot tell, the engine refuses what it meets."""
    innermost = getattr(getattr(torch._C, "_functorch", None), "peek_interpreter_stack", None)
    return innermost is not None and innermost() is not None

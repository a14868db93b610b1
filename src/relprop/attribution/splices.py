"""Splices: a hidden tensor as the sum of an autoencoder's latents and what they leave unexplained.

With `z = encode(h)` and `e = h - decode(z)`, the model goes on with `h` itself, bit for bit, while relevance goes to the
latents and to the error: `R(z_k) = z_k (d_k G)` for a linear decoder with rows `d_k`, and `R(e) = e G`. Written into a
model as it stands, `e` would be a function of `z`, and the latents' two paths would cancel to 0. So `e` is a node of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from relprop.attribution.layers import PARTS, SplicedPart, wanted
from relprop.engine.door import standing
from relprop.engine.functions import grafted, scaled
from relprop.engine.notes import adopt, note_of
from relprop.engine.run import Run
from relprop.engine.tensors import exchanged
from relprop.engine.undo import Undo
from relprop.errors import InputError, RelpropError
from relprop.signatures import public
from relprop.torch_private.state import without_torch_function
from relprop.trees import leaves

Splices = Mapping[str, "Splice"]
"""Splices by the paths of their layers."""


@dataclass(frozen=True, eq=False)
class Splice:
    """A sparse autoencoder or a transcoder in a layer's output, for `attribute(..., splices=)`.

    The layer's output h stands for the reconstruction plus the error, `decode(encode(h)) + e`; the model's value does not
    change. The path of the layer followed by `.latents`, `.error` or `.reconstruction` names these tensors in `layers=`,
    `units`, `graph` and `index`. What the reconstruction has beyond the latents went to the decoder's bias. `encode` and
    `decode` get LRP-0, whatever the composite, and do not count among the layers of the model.

    Args:
        layer: the path of a module, or the module.
        autoencoder: an object with methods `encode` and `decode`, as those of SAELens and dictionary_learning have.
        encode: a function from what the layer gives to latents, in place of the autoencoder's. It may also return the
            largest latents and their numbers, as those of sparsify do: `decode` gets the same.
        decode: a function from latents to a tensor of the shape that the layer gives.
        skip: for a transcoder, a function of what is read, which is added to the reconstruction.
        reads: "output" for an autoencoder; "input" for a transcoder, which reads the layer's input.
        error: "pass": relevance of the error goes on to h, entry by entry, so that maps stay conserved; "sink": it ends.
        part: which floating-point tensor of the layer's output; 0 is the first.

    Raises:
        InputError: an argument cannot be what it is.

    References:
        Marks et al. 2024, "Sparse feature circuits", for errors as nodes; Ameisen et al. 2025 for transcoders.
    """

    layer: str | nn.Module
    autoencoder: Any = None
    encode: Callable[..., Any] | None = None
    decode: Callable[..., Any] | None = None
    skip: Callable[..., Any] | None = None
    reads: str = "output"
    error: str = "pass"
    part: int = 0

    @public("relprop.Splice")
    def __post_init__(self) -> None:
        if not isinstance(self.layer, (str, nn.Module)):
            raise InputError(f"a splice takes the path of a layer or its module; got {self.layer!r}.")
        for name in ("encode", "decode"):
            given = getattr(self, name) or getattr(self.autoencoder, name, None)
            if not callable(given):
                raise InputError(
                    f"a splice needs {name}: give an autoencoder that has the method, or {name}=, a function; got "
                    f"{self.autoencoder!r} and {getattr(self, name)!r}."
                )
            object.__setattr__(self, name, given)
        if self.skip is not None and not callable(self.skip):
            raise InputError(f"skip must be a function of what the splice reads; got {self.skip!r}.")
        for name, known in (("reads", ("output", "input")), ("error", ("pass", "sink"))):
            if getattr(self, name) not in known:
                raise InputError(f"{name} must be {known[0]!r} or {known[1]!r}; got {getattr(self, name)!r}.")
        if not isinstance(self.part, int) or isinstance(self.part, bool) or self.part < 0:
            raise InputError(f"part must be the number of a tensor, from 0; got {self.part!r}.")

    def modules(self) -> list[nn.Module]:
        """The modules that the splice is made of, as far as they are known."""
        owners = [self.autoencoder, *(getattr(f, "__self__", f) for f in (self.encode, self.decode, self.skip))]
        return list({id(m): m for m in owners if isinstance(m, nn.Module)}.values())


def splices_of(model: Any, given: Any) -> dict[str, Splice]:
    """The splices of a call, by the paths of their layers.

    Raises:
        InputError: one is not a splice, the model has no such layer, or a layer has several.
    """
    found: dict[str, Splice] = {}
    listed = [] if given is None else given if isinstance(given, (list, tuple)) else [given]
    for one in listed:
        if not isinstance(one, Splice):
            raise InputError(f"splices must be a relprop.Splice, or a list of them; got {one!r}.")
        named = wanted(model, [one.layer], "splices")
        if len(named) != 1:
            raise InputError(f"a splice is at one layer; {one.layer!r} names {len(named)}.")
        path = next(iter(named))
        if path in found:
            raise InputError(f"there are two splices at {path!r}; give one for each layer.")
        found[path] = one
    modules = dict(model.named_modules()) if found else {}
    for name in parts_of(found):
        if name in modules:
            raise InputError(f"the model has a module {name!r}, so a splice there could not be told from it.")
    return found


def parts_of(splices: Splices) -> dict[str, SplicedPart]:
    """The tensors that splices make, by name."""
    return {f"{path}.{name}".lstrip("."): SplicedPart(path, name) for path in splices for name in PARTS}


@contextmanager
def spliced(splices: Splices, model: Any, checkpointed: Mapping[str, Any], run: Run) -> Iterator[None]:
    """While this lasts, the layers give what splices make of their outputs."""
    thread, ran = threading.get_ident(), set()
    modules = dict(model.named_modules()) if splices else {}
    with Undo() as undo:
        for path, splice in splices.items():
            if any(f"{path}.".startswith(f"{outer}.") or not outer for outer in checkpointed):
                raise InputError(
                    f"the splice at {path!r} lies in a block that checkpoint= computes again. Leave one out."
                )

            def put(m: Any, args: Any, kwargs: Any, out: Any, path: str = path, splice: Splice = splice) -> Any:
                if threading.get_ident() != thread:
                    return out
                ran.add(path)
                return _Spliced(path, splice, run).output((args, kwargs), out)

            undo.later(modules[path].register_forward_hook(put, with_kwargs=True).remove)
        yield
    for path in splices:
        if path not in ran:
            raise InputError(f"the splice at {path!r}: the layer did not run in the forward of the model.")
    if splices and run.sites.nz_hidden:
        raise InputError(
            "splices= takes rules that are proportional to the input at hidden layers; this composite gives relevance to "
            "exact zeros as well."
        )


class SpliceCalls:
    """Calls what a splice is made of, and checks what it gives."""

    def __init__(self, path: str, splice: Splice) -> None:
        self._path, self._splice = path, splice
        self.said = f"the splice at {path!r}"

    def tensors(self, given: Any, out: Any) -> tuple[Tensor, Tensor]:
        """What the layer gives, and what the splice reads."""
        h = _tensor(out, self._splice.part, f"{self.said}: the layer")
        return h, h if self._splice.reads == "output" else _tensor(given, 0, f"{self.said}: the input of the layer")

    def encoded(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The latents, and the numbers of those that decode takes, if it takes some."""
        found = self._asked("encode", x)
        numbers = None
        if isinstance(found, (tuple, list)) and len(found) > 1 and _counts(found[1]):
            found, numbers = self._dense(found[0], found[1]), found[1]
        if not isinstance(found, Tensor) or not found.is_floating_point():
            raise InputError(f"{self.said}: encode must return a tensor of latents; got {_said(found)}.")
        if len(found) != len(x):
            raise InputError(
                f"{self.said}: encode gives {tuple(found.shape)} for {tuple(x.shape)}: the samples differ."
            )
        return found, numbers

    def _dense(self, values: Tensor, numbers: Tensor) -> Tensor:
        """All latents, from the largest and their numbers."""
        count = getattr(self._splice.autoencoder, "num_latents", None)
        if not isinstance(count, int):
            raise InputError(
                f"{self.said}: encode returns the largest latents and their numbers, so the autoencoder must say how many "
                "there are, num_latents; or give an encode= that returns all latents."
            )
        return values.new_zeros(*values.shape[:-1], count).scatter(-1, numbers, values)

    def decoded(self, latents: Tensor, numbers: Tensor | None, read: Tensor, h: Tensor) -> Tensor:
        """What decode makes of the latents, and skip of what was read."""
        given = (latents,) if numbers is None else (latents.gather(-1, numbers), numbers)
        found = self._asked("decode", *given)
        self._check("decode", found, h)
        if self._splice.skip is None:
            return found
        more = self._asked("skip", read)
        self._check("skip", more, h)
        total: Tensor = found + more
        return total

    def _check(self, name: str, found: Any, h: Tensor) -> None:
        if not isinstance(found, Tensor) or found.shape != h.shape or found.dtype != h.dtype:
            raise InputError(
                f"{self.said}: {name} gives {_said(found)}, and the layer {_said(h)}. They must be of one shape and dtype."
            )
        if not bool(torch.isfinite(found.detach()).all()):
            raise InputError(f"{self.said}: what {name} gives is not finite.")

    def _asked(self, name: str, *given: Tensor) -> Any:
        try:
            return getattr(self._splice, name)(*given)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            if isinstance(error, RelpropError):
                raise
            raise InputError(f"{self.said}: {name} refuses {_said(given[0])}: {error}") from error


class _Spliced(SpliceCalls):
    """One run of a layer with a splice."""

    def __init__(self, path: str, splice: Splice, run: Run) -> None:
        super().__init__(path, splice)
        self._run = run

    def output(self, given: Any, out: Any) -> Any:
        """What the layer returns, with its tensor replaced."""
        if self._run.sites.journal.active and self._run.sites.journal.inside():
            raise InputError(f"{self.said} lies in a checkpointed part of the model, which would run without it.")
        h, read = self.tensors(given, out)
        if not (h.requires_grad and read.requires_grad):
            raise InputError(f"{self.said}: the layer carries no relevance there, so there is nothing to take apart.")
        return exchanged(out, h, self._parted(h, read))

    def _parted(self, h: Tensor, read: Tensor) -> Tensor:
        run, splice = self._run, self._splice
        with run.sites.beside():
            whole = self._fresh(h)
            entering = whole if read is h else self._fresh(read)
            latents, numbers = self.encoded(entering)
            if not latents.requires_grad:
                raise InputError(
                    f"{self.said}: the latents do not depend on what encode was given: it may run without gradients (no_grad, "
                    "detach), or return numbers of its own."
                )
            latents = self._shown("latents", latents)
            rebuilt = self.decoded(latents, numbers, entering, h)
            rebuilt = self._shown("reconstruction", rebuilt)
            error = self._shown("error", self._error(whole, h, rebuilt, splice.error))
            total = rebuilt + error
        with without_torch_function():
            made = grafted(h, total)
        self._record("sum", made)
        return made

    def _fresh(self, t: Tensor) -> Tensor:
        """The same numbers as a tensor that nothing before it is merged with."""
        if t.requires_grad and note_of(t) is None:
            t.view_as(t)  # the engine meets the result of a custom function in this operation
            t = standing(t)
        with without_torch_function():
            made = grafted(t, t)
        self._record("copy", made)
        return made

    def _shown(self, name: str, t: Tensor) -> Tensor:
        t = self._fresh(t)
        self._run.trace.made_part(f"{self._path}.{name}".lstrip("."), t)
        return t

    def _record(self, name: str, t: Tensor) -> None:
        adopt(self._run, t)
        if self._run.trace.recorder is not None:
            with without_torch_function():
                self._run.trace.recorder.record("splice", name, self._run.where(), t)

    def _error(self, whole: Tensor, h: Tensor, rebuilt: Tensor, kind: str) -> Tensor:
        """What the reconstruction lacks. Its relevance goes to h entry by entry, or ends."""
        with without_torch_function():
            value = h.detach() - rebuilt.detach()
            ratio = torch.where(h.detach() == 0, 0.0, value / h.detach()) if kind == "pass" else None
            made = grafted(value, scaled(whole, 0.0) if ratio is None else whole * ratio)
        self._record("reconstruction error", made)
        return made


def _said(value: Any) -> str:
    return f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def _counts(value: Any) -> bool:
    return isinstance(value, Tensor) and not value.is_floating_point() and not value.is_complex()


def _tensor(value: Any, part: int, said: str) -> Tensor:
    """One of the floating-point tensors that a layer takes or gives."""
    some = [t for _, t in leaves(value) if isinstance(t, Tensor) and t.is_floating_point()]
    if part >= len(some):
        raise InputError(f"{said} has {len(some)} floating-point tensors there; got part={part}.")
    return some[part]

"""What is checked at the door, before and after the forward pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from relprop.attribution.propagate import resolve
from relprop.attribution.trees import leaves
from relprop.composites import Composite
from relprop.errors import InputError, ModelStateError, NonFiniteError
from relprop.numerics import known


def admit(model: Any, inputs: Any, composite: Composite | str) -> tuple[Any, Composite | None]:
    """What `attribute` and `survey` ask at the door: the inputs as plain containers, and the composite, None for auto."""
    check_callable(model)
    inputs = dict(inputs) if isinstance(inputs, Mapping) else inputs
    check_inputs(model, inputs)
    return inputs, rules_for(model, composite)


def check_callable(model: Any) -> None:
    """Refuses what cannot be a model."""
    if not callable(model):
        raise InputError(f"model must be a module or a callable; got {type(model).__name__}.")


def rules_for(model: Any, composite: Composite | str) -> Composite | None:
    """A composite, from its name or as it is, that names nothing which this model lacks; None for auto."""
    chosen = resolve(composite)
    if chosen is not None:
        chosen.check(dict(model.named_modules(remove_duplicate=False)) if isinstance(model, nn.Module) else {})
    return chosen


def arguments(inputs: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """The inputs and the further arguments, as the model takes them."""
    if isinstance(inputs, tuple):
        return (*inputs, *args), kwargs
    if isinstance(inputs, dict):
        return args, {**inputs, **kwargs}
    return (inputs, *args), kwargs


def check_inputs(model: Any, inputs: Any) -> None:
    """Refuses inputs that cannot carry relevance."""
    found = leaves(inputs)
    if not found:
        raise InputError("inputs is empty: pass a tensor, or a tuple, list or dict of tensors.")
    for path, tensor in found:
        if not isinstance(tensor, Tensor):
            raise InputError(
                f"{path} is a {type(tensor).__name__}; inputs must be tensors. Pass other arguments in forward_args or forward_kwargs."
            )
        if tensor.is_complex():
            raise InputError(
                f"{path} is complex ({tensor.dtype}): relevance is defined for real inputs. Pass torch.view_as_real(x)."
            )
        if tensor.numel() == 0:
            raise InputError(
                f"{path} is empty: its shape is {tuple(tensor.shape)}. Pass a batch of at least one sample."
            )
        if not known(torch.isfinite(tensor).all(), True):
            raise InputError(f"{path} holds NaN or infinite values.")
    lengths = {t.shape[0] for _, t in found if t.ndim and (t.is_floating_point() or t.shape[0] > 1)}
    if len(lengths) > 1:
        raise InputError(f"the inputs hold different numbers of samples along their first axis: {sorted(lengths)}.")
    devices = {t.device for _, t in found}
    if isinstance(model, nn.Module):
        _check_model(model)
        parameters = list(model.parameters())
        parameter = parameters[0] if parameters else None
        dtypes = {p.dtype for p in parameters if p.is_floating_point()}
        odd = {t.dtype for _, t in found if t.is_floating_point()} - dtypes
        autocast = torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")
        if len(dtypes) == 1 and odd and not autocast:
            raise InputError(
                f"the model is {dtypes.pop()}, the inputs are {odd.pop()}: convert one, as in x.to(model's dtype)."
            )
        if parameter is not None and len(devices) == 1 and parameter.device.type not in {d.type for d in devices}:
            (device,) = devices
            raise InputError(
                f"the model is on {parameter.device}, the inputs are on {device}: move one, x.to({str(parameter.device)!r})."
            )


def _check_model(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, torch.jit.ScriptModule):
            name = next(name for name, other in model.named_modules() if other is module)
            raise ModelStateError(
                f"module '{name}' is TorchScript: its operations cannot be seen. Explain the original Python module instead."
            )


def check_output(model: Any, output: Any, inputs: Any, args: tuple, kwargs: dict) -> None:
    """Refuses an output that is not finite, naming the module that made it so."""
    tensors = [t for _, t in leaves(output) if isinstance(t, Tensor) and t.is_floating_point()]
    if all(known(torch.isfinite(t).all(), True) for t in tensors):
        return
    raise NonFiniteError(f"the model's output holds NaN or infinite values; {_culprit(model, args, kwargs)}")


def check_relevance(values: Sequence[Tensor], inputs: Any) -> None:
    """Refuses relevance that is not finite."""
    for (path, _), value in zip(leaves(inputs), values, strict=True):
        if not known(torch.isfinite(value).all(), True):
            raise NonFiniteError(
                f"the relevance of {path} holds NaN or infinite values (dtype {value.dtype}). A denominator vanished or "
                "overflowed: use a rule with a stabiliser, such as composite='epsilon', or a wider dtype."
            )


def _culprit(model: Any, args: tuple, kwargs: dict) -> str:
    if not isinstance(model, nn.Module):
        return "check the function's arithmetic on these inputs."
    seen: list[str] = []

    def watch(name: str) -> Any:
        def hook(module: nn.Module, _: Any, out: Any) -> None:
            bad = [
                t
                for _, t in leaves(out)
                if isinstance(t, Tensor) and t.is_floating_point() and not torch.isfinite(t).all()
            ]
            if bad:
                seen.append(f"module '{name}' ({type(module).__name__})" if name else "the model's own forward")

        return hook

    handles = [m.register_forward_hook(watch(name)) for name, m in model.named_modules()]
    try:
        with torch.no_grad():
            model(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return f"they first appear in the output of {seen[0]}." if seen else "check the inputs."

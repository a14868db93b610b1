"""Checks of arguments, of inputs before the forward pass, and of what comes out of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

from relprop.attribution.later import Later
from relprop.attribution.mistaken import no_model, no_tensor
from relprop.attribution.propagate import resolve
from relprop.composites import Composite
from relprop.engine.members import Members, members
from relprop.errors import InputError, ModelStateError, NonFiniteError, TargetError
from relprop.trees import leaves


def admit(
    model: Any,
    inputs: Any,
    composite: Composite | str,
    name: str = "inputs",
    own: Members | None = None,
    later: bool = False,
) -> tuple[Any, Composite | None]:
    """Checks model, inputs (which messages call `name`) and composite; returns the inputs as plain containers, and the composite, None for auto.

    With `later`, whether the inputs are finite is for the caller to ask.
    """
    check_callable(model, inputs)
    inputs = dict(inputs) if isinstance(inputs, Mapping) else inputs
    own = members(model) if own is None else own
    check_inputs(model, inputs, own, name)
    if not later:
        check_finite(inputs, name)
    return inputs, rules_for(model, composite, own)


def check_callable(model: Any, inputs: Any = None) -> None:
    """Refuses a model that is none."""
    if why := no_model(model, inputs):
        raise InputError(why)


def check_flags(**given: Any) -> None:
    """Refuses flags that are neither True nor False."""
    for name, value in given.items():
        if not isinstance(value, bool):
            raise InputError(f"{name} must be True or False; got {value!r}.")


def check_further(args: Any, kwargs: Any) -> None:
    """Refuses further arguments that are not a tuple or a dict: a tensor would fall into rows, a text into letters."""
    if not isinstance(args, (tuple, list)):
        raise InputError(
            f"forward_args must be a tuple of further arguments; got {type(args).__name__}. For a single one write "
            "forward_args=(it,)."
        )
    if not isinstance(kwargs, Mapping | None):
        raise InputError(
            f"forward_kwargs must be a dict of further arguments by name; got {type(kwargs).__name__}. Write "
            "forward_kwargs={'name': it}."
        )


def rules_for(model: Any, composite: Composite | str, found: Members | None = None) -> Composite | None:
    """The composite that is given or named, None for auto. Refuses one that names a path which the model lacks."""
    chosen = resolve(composite)
    if chosen is not None:
        chosen.check(lambda: (members(model) if found is None else found).paths)
    return chosen


def arguments(inputs: Any, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """The inputs and the further arguments, as the model takes them."""
    if isinstance(inputs, tuple):
        return (*inputs, *args), kwargs
    if isinstance(inputs, dict):
        return args, {**inputs, **kwargs}
    return (inputs, *args), kwargs


def check_inputs(model: Any, inputs: Any, own: Members, name: str) -> None:
    """Refuses inputs that cannot carry relevance."""
    found = leaves(inputs, name)
    if not found:
        raise InputError(f"{name} is empty: pass a tensor, or a tuple, list or dict of tensors.")
    for path, tensor in found:
        if not isinstance(tensor, Tensor):
            fix = no_tensor(path, tensor, model, alone=not any(isinstance(t, Tensor) for _, t in found))
            raise InputError(f"{path} is of type {type(tensor).__name__}; inputs must be tensors. {fix}")
        if tensor.is_nested or tensor.layout is not torch.strided:
            raise InputError(f"{path} is {_unread(tensor)}")
        if tensor.is_complex():
            raise InputError(
                f"{path} is complex ({tensor.dtype}): relevance is defined for real inputs. Pass torch.view_as_real(x)."
            )
        if tensor.numel() == 0:
            fix = "Pass a batch of at least one sample."
            if len(tensor):
                fix = "It has no numbers to explain: pass it in forward_args or forward_kwargs."
            raise InputError(f"{path} is empty: its shape is {tuple(tensor.shape)}. {fix}")
        if tensor.is_meta:
            raise InputError(f"{path} is on device meta: it has a shape and no numbers. Pass a tensor with numbers.")
    devices = {t.device for _, t in found}
    if isinstance(model, nn.Module):
        parameter, dtypes = _check_model(own)
        odd = {t.dtype for _, t in found if t.is_floating_point()} - dtypes
        autocast = torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")
        if len(dtypes) == 1 and odd and not autocast:
            (dtype,) = dtypes
            raise InputError(
                f"the model is {dtype}, the inputs are {odd.pop()}: convert one, as in inputs.to({dtype})."
            )
        if parameter is not None and len(devices) == 1 and parameter.device.type not in {d.type for d in devices}:
            (device,) = devices
            raise InputError(
                f"the model is on {parameter.device}, the inputs are on {device}: move one, x.to({str(parameter.device)!r})."
            )


def _unread(tensor: Tensor) -> str:
    """What an input is that has no number in each place, and what to do."""
    if tensor.is_nested:
        return (
            "a nested tensor, and relevance has one shape for all samples: pass torch.nested.to_padded_tensor(inputs, 0.0), or "
            "explain one sample at a time."
        )
    return (
        "sparse, and relevance is given to each number: pass inputs.to_dense(), with lambda x: model(x.to_sparse()) for a model "
        "that needs a sparse tensor; or pass what is to be constant, such as the links of a graph, in forward_args."
    )


def check_finite(inputs: Any, name: str = "inputs", later: Later | None = None) -> None:
    """Refuses inputs that are not finite, at once or later."""
    found = [(path, t) for path, t in leaves(inputs, name) if t.is_floating_point()]

    def check(sums: list[float]) -> None:
        for (path, t), total in zip(found, sums, strict=True):
            if not finite(t, total):
                raise InputError(f"{path} holds NaN or infinite values.")

    _at_once_or(later, [t.detach().sum() for _, t in found], check)


def _at_once_or(later: Later | None, numbers: list[Tensor], check: Callable[[list[float]], None]) -> None:
    asked = Later() if later is None else later
    asked.ask(numbers, check)
    if later is None:
        asked.settle()


def check_names(labels: Any) -> None:
    """Refuses labels that are not a list of names."""
    if labels is None:
        return
    hint = " Write labels=list(names.values())." if isinstance(labels, Mapping) else ""
    if isinstance(labels, str) or not isinstance(labels, Sequence) or not all(isinstance(one, str) for one in labels):
        raise TargetError(f"labels must be a list of the classes' names, in their order; got {labels!r}.{hint}")


def unequal(inputs: Any) -> str:
    """What is said of inputs whose first axes have different lengths; "" if their lengths agree."""
    found = [t for _, t in leaves(inputs) if isinstance(t, Tensor) and t.ndim]
    lengths = {t.shape[0] for t in found if t.is_floating_point() or t.shape[0] > 1}
    if len(lengths) < 2:
        return ""
    return (
        f"the inputs hold different numbers of samples along their first axis: {sorted(lengths)}. Where these are not samples, "
        "as nodes and edges of a graph, explain one number: target=lambda output: output[i, j]."
    )


def check_lengths(inputs: Any, score: Tensor) -> None:
    """Refuses several scores for inputs with different numbers of samples; a single score may have such inputs."""
    if score.numel() != 1 and (wrong := unequal(inputs)):
        raise InputError(wrong)


def check_labels(labels: Sequence[str] | None, output: Any) -> None:
    """Refuses another number of names than classes: a name would stand for the wrong class."""
    if labels is None or not isinstance(output, Tensor) or output.ndim != 2 or output.shape[1] == 1:
        return
    if len(labels) != output.shape[1]:
        raise TargetError(
            f"labels has {len(labels)} names, but the model has {output.shape[1]} classes: give one each."
        )


def _check_model(own: Members) -> tuple[Tensor | None, set[torch.dtype]]:
    """Refuses a model that cannot be explained; returns a parameter with numbers, and the dtypes of those that are floats."""
    for name in own.scripted:
        raise ModelStateError(
            f"module '{name}' is TorchScript: its operations cannot be seen. Explain the original Python module instead."
        )
    parameter, empty, dtypes = None, False, set()
    for p in own.tensors:
        if p.is_meta:
            empty = True
        elif parameter is None:
            parameter = p
        dtypes.add(p.dtype)
    # accelerate's hooks load a module's weights when it runs, and remove them afterwards
    if empty and not any(hasattr(module, "_hf_hook") for module in own.every):
        name = next(name for name, p in own.parameters if p.is_meta)
        raise ModelStateError(
            f"parameter '{name}' is on device meta: it has a shape and no numbers. Load the model's weights first, as in "
            "model.load_state_dict(state, assign=True)."
        )
    return parameter, {dtype for dtype in dtypes if dtype.is_floating_point}


def check_output(model: Any, output: Any, inputs: Any, args: tuple, kwargs: dict, later: Later | None = None) -> None:
    """Refuses an output that is not finite, at once or later; the error names the module where it became so."""
    tensors = [t.detach() for _, t in leaves(output) if isinstance(t, Tensor) and t.is_floating_point()]

    def check(sums: list[float]) -> None:
        if not all(finite(t, total) for t, total in zip(tensors, sums, strict=True)):
            why = _culprit(model, args, kwargs)
            raise NonFiniteError(f"the model's output holds NaN or infinite values; {why}")

    _at_once_or(later, [t.sum() for t in tensors], check)


def check_relevance(values: Sequence[Tensor], inputs: Any) -> None:
    """Refuses relevance that is not finite."""
    _at_once_or(None, largest(values), lambda sizes: check_sizes(sizes, values, inputs))


def largest(values: Sequence[Tensor]) -> list[Tensor]:
    """The largest size among the numbers of each tensor: NaN or infinite if one of them is."""
    return [v.detach().abs().amax() if v.numel() else v.new_zeros(()) for v in values]


def check_sizes(sizes: Sequence[float], values: Sequence[Tensor], inputs: Any) -> None:
    """Refuses relevance whose largest sizes, one for each input, are not finite."""
    for (path, _), value, size in zip(leaves(inputs), values, sizes, strict=True):
        if not isfinite(size):
            raise NonFiniteError(
                f"the relevance of {path} holds NaN or infinite values (dtype {value.dtype}). A denominator vanished or "
                "overflowed: use a rule with a stabiliser, such as composite='epsilon', or a wider dtype."
            )


def finite(tensor: Tensor, total: float) -> bool:
    """Whether all numbers are finite. A finite sum, the quickest test, says so at once."""
    return isfinite(total) or bool(torch.isfinite(tensor.detach()).all())


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

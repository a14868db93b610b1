"""What the caller probably meant, where the model, an input or the batch is not what it should be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn

from relprop.engine.members import Members, members
from relprop.engine.undo import Undo
from relprop.errors import InputError, RelpropError
from relprop.trees import leaves

REFUSALS = (RuntimeError, ValueError, IndexError, TypeError)
"""What models raise on inputs that they do not take. Other errors are raised as they are."""


def no_model(model: Any, inputs: Any) -> str:
    """Why this cannot be a model, and what to write instead; "" if it can be one."""
    if isinstance(model, type):
        return f"model is the class {model.__name__}, not one of its instances: pass {model.__name__}(...), with its weights."
    if callable(model):
        return ""
    said = f"model must be a module or a callable; got {_said(model)}."
    if callable(inputs) and not isinstance(inputs, type):
        return f"{said} The inputs are callable: model and inputs are in the wrong order, the model comes first."
    if isinstance(model, Mapping) and model and all(isinstance(value, Tensor) for value in model.values()):
        return f"{said} It holds tensors, as a state dict does: fill a model with it, net.load_state_dict(...), and pass that."
    if isinstance(model, (str, PathLike)):
        return (
            f"{said} Load the model first: net.load_state_dict(torch.load(path)) where the file holds weights, "
            "net = torch.load(path, weights_only=False) where it holds a whole module that you trust."
        )
    if isinstance(model, Sequence) and any(callable(one) for one in model):
        return f"{said} Explain one model at a time."
    return said


def no_tensor(path: str, given: Any, model: Any, alone: bool = True) -> str:
    """What to do with an input that is not a tensor. `alone`: there are no tensors beside it."""
    kind = type(given)
    if isinstance(given, nn.Module) or (callable(given) and not hasattr(given, "__array__")):
        return "The model comes first, then its inputs."
    if kind.__module__.partition(".")[0] == "PIL":
        return (
            f"Make a batch of the picture: relprop.read_image({path}, size=224). Give it the size, mean= and std= that the model "
            "was trained with, or its transform=."
        )
    if hasattr(given, "to_frame"):  # a column of pandas, or a row
        return f"A data frame goes in as it is: {path}.to_frame() is one of this column, df.iloc[[0]] one of the first row."
    if hasattr(given, "__array__"):
        own = _dtype(model)
        cast = f".to({own})" if own is not None and str(getattr(given, "dtype", "")).startswith("float") else ""
        cast = "" if str(own) == f"torch.{getattr(given, 'dtype', '')}" else cast
        return f"torch.as_tensor({path}){cast} makes one."
    if isinstance(given, (str, PathLike)):
        return (
            "relprop.read_image(path) makes a tensor of a picture, and relprop.explain_text(model, tokenizer, text) explains a "
            "text; the command `relprop explain` opens files by itself."
        )
    if isinstance(given, (int, float)) and alone:
        return "Make one of the whole list, torch.tensor([...]); a tokenizer does with return_tensors='pt'."
    held = [name for name, value in getattr(given, "__dict__", {}).items() if isinstance(value, Tensor)]
    if held:
        makes = f"{kind.__name__}({', '.join(f'{name}={name}' for name in held)})"
        return (
            f"Give its tensors, and a function that makes the {kind.__name__} of them: relprop.attribute(lambda "
            f"{', '.join(held)}: model({makes}), ({', '.join(f'given.{name}' for name in held)},))."
        )
    return "Pass other arguments in forward_args or forward_kwargs."


def no_output(output: Any) -> str:
    """What to do with an output that is not a tensor."""
    says = f"the model returned a {type(output).__name__}, not a tensor: "
    if output is None or isinstance(output, (bool, int, float, complex, str)) or hasattr(output, "__array__"):
        return (
            f"{says}relevance starts at a tensor that was computed from the inputs. Let the model return that tensor, before "
            "item(), float() or numpy() reads its numbers."
        )
    return f"{says}pass select=, a key, index or function that picks the tensor to explain."


def _said(given: Any) -> str:
    name = type(given).__name__
    return f"{name} {given!r}" if isinstance(given, (str, PathLike, int, float)) else name


def _dtype(model: Any) -> torch.dtype | None:
    """The dtype of a model's weights; None if they have several."""
    if not isinstance(model, nn.Module):
        return None
    found = {p.dtype for p in model.parameters() if p.is_floating_point()}
    return found.pop() if len(found) == 1 else None


def misshapen(model: Any, inputs: Any) -> str:
    """What is probably wrong with the shape of inputs that a model refused, judged by its first convolution; else ""."""
    if not isinstance(model, nn.Module) or not isinstance(inputs, Tensor):
        return ""
    convolutions = (m for m in model.modules() if isinstance(m, (nn.Conv1d, nn.Conv2d, nn.Conv3d)))
    first = next(convolutions, None)
    if first is None:
        return ""
    shape, channels, axes = tuple(inputs.shape), first.in_channels, len(first.kernel_size) + 2
    said = f"inputs has shape {shape}, and the first convolution takes {axes} axes, (N, {channels}, ...)."
    if len(shape) == axes - 1:
        return f"{said} Is the axis of samples missing? Then pass inputs[None]." if shape[0] == channels else said
    if len(shape) == axes and shape[1] != channels == shape[-1]:
        return f"{said} Are the channels last? Then pass inputs.movedim(-1, 1)."
    return ""


def refuses(model: Any, inputs: Any, args: tuple, kwargs: dict, error: Exception) -> str:
    """What is said if the model raises the same error without relprop; "" if it does not.

    To find out, the model runs once more on its own.
    """
    if isinstance(error, (RelpropError, torch.OutOfMemoryError)):
        return ""
    try:
        with torch.no_grad():
            model(*args, **kwargs)
    except Exception as again:
        if type(again) is not type(error):
            return ""
    else:
        return ""
    shapes = ", ".join(f"{path} of shape {tuple(t.shape)}" for path, t in leaves(inputs) if isinstance(t, Tensor))
    hint = misshapen(model, inputs)
    if not hint and isinstance(inputs, list):
        hint = "A list is passed on as one argument: for a batch of tensors of one shape pass torch.stack(inputs)."
    if not hint and isinstance(error, TypeError) and "missing" in str(error):
        hint = (
            "Further arguments go in forward_args=(...) or forward_kwargs={...}; several inputs are a tuple or a dict."
        )
    said = f"the model itself does not take {shapes}."
    return f"{said}{' ' + hint if hint else ''} The model itself raised: {type(error).__name__}: {error}"


_WATCHED: dict[int, tuple[type[nn.Module], ...]] = {
    1: (nn.Linear,), 2: (nn.Conv1d, nn.RNNBase), 3: (nn.Conv2d, nn.RNNBase), 4: (nn.Conv3d,)
}  # fmt: skip
"""The layers that take an input with so many axes for one sample without the axis of samples, or for time first."""


class WatchedLayers:
    """What the layers of a model were given while it ran.

    Args:
        shape: the shape of the only input; empty if there are several inputs, because then none of them tells.

    Attributes:
        lone: what is said of a layer that was given one sample without the axis of samples; "" if none was.
        timed: what is said of a recurrent layer that read the first axis as time; "" if none did.
    """

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        self.lone = self.timed = ""
        self._shape = shape

    def suspects(self, module: nn.Module) -> bool:
        """Whether the input's shape lets a layer take the wrong axis for that of samples."""
        shape = self._shape
        axes, feature, width = _takes(module)
        lone = len(shape) == axes - 1 and shape[feature] == width
        return lone or (isinstance(module, nn.RNNBase) and not module.batch_first and len(shape) == 3 and shape[0] > 1)

    def meet(self, name: str, module: Any, met: Any) -> None:
        """Notes what a layer was given, just before it runs."""
        if not isinstance(met, Tensor):
            return
        said = f"'{name}' ({type(module).__name__})" if name else f"the model, {type(module).__name__},"
        if met.ndim == _takes(module)[0] - 1 == len(self._shape):
            fix = "inputs[:, None]" if getattr(module, "batch_first", True) is False else "inputs[None]"
            self.lone = f"{said} met one sample without its axis, as inputs has shape {self._shape}: pass a batch of one, {fix}."
        elif isinstance(module, nn.RNNBase) and not module.batch_first and tuple(met.shape[:2]) == self._shape[:2]:
            self.timed = (
                f"{said} reads the first axis of inputs, of shape {self._shape}, as time (batch_first=False). Where that is "
                "meant, explain lambda x: model(x.transpose(0, 1)) on inputs.transpose(0, 1), with one score per "
                "sample; where the samples come first, make the layer with batch_first=True."
            )

    def check(self, scores: Tensor) -> None:
        """Refuses several scores if the first axis is not that of samples.

        Raises:
            InputError: there is a score for each entry of another axis.
        """
        if scores.numel() > 1 and (self.lone or (self.timed and scores.numel() == self._shape[0])):
            raise InputError(
                self.lone or f"{self.timed} There is a score for each entry of it, as if these were samples."
            )


@contextmanager
def batched(model: Any, inputs: Any, own: Members | None = None) -> Iterator[WatchedLayers]:
    """While this lasts, watches the model for signs that the first axis of its inputs is not that of samples.

    Torch's layers also take one sample without the axis of samples, and its recurrent layers expect time first unless
    told otherwise. The entries of that axis would then pass for samples. Only layers whose shapes allow this are watched.
    """
    tensors = [t for _, t in leaves(inputs)]
    lone = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], Tensor) and tensors[0].ndim else None
    if not isinstance(model, nn.Module) or lone is None:
        yield WatchedLayers()
        return
    watched = WatchedLayers(tuple(lone.shape))

    def hook(name: str) -> Any:
        return lambda module, args: watched.meet(name, module, args[0] if args else None)

    with Undo() as undo:
        own = members(model) if own is None else own
        kinds = _WATCHED.get(lone.ndim, ())
        suspected = {id(m): m for m in own.every if isinstance(m, kinds) and watched.suspects(m)} if kinds else {}
        for module in suspected.values():
            undo.later(module.register_forward_pre_hook(hook(own.standing[id(module)][0][0])).remove)
        yield watched


def _takes(module: Any) -> tuple[int, int, int]:
    """How many axes a batch for this layer has, which axis of one sample holds the features, and how many there are."""
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        return len(module.kernel_size) + 2, 0, module.in_channels
    if isinstance(module, nn.RNNBase):
        return 3, -1, module.input_size
    return (2, -1, module.in_features) if isinstance(module, nn.Linear) else (0, 0, 0)

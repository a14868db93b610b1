"""A network's weights from a file. No file runs code when it is read."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from relprop.errors import InputError, ModelStateError
from relprop.optional import library
from relprop.rendering.visible import quoted, visible

PICKLED = (".pt", ".pth", ".bin", ".ckpt")
_INSIDE = ("state_dict", "model_state_dict", "model", "weights", "net")
"""The names under which training scripts save the weights, beside an optimizer's state."""
_WRAPPED = ("module.", "_orig_mod.", "model.")
"""What wrappers put before every name: DataParallel, torch.compile, Lightning."""


def load_weights(model: nn.Module, path: Path) -> None:
    """Loads the weights of a file into a model. Every name and shape must fit.

    Args:
        model: the network.
        path: a `.safetensors` file, or a `.pt`, `.pth`, `.bin` or `.ckpt` file of torch.save that holds tensors and plain
            data alone. Weights may lie under a name such as `state_dict`, and have the prefix of a wrapper.

    Raises:
        InputError: there is no such file, it is broken, or it holds more than tensors.
        ModelStateError: the weights do not fit the model.
        ModuleNotFoundError: safetensors is not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in (".safetensors", *PICKLED):
        raise InputError(f"{quoted(path.name)} is not a file of weights: .safetensors, {', '.join(PICKLED)}.")
    if not path.is_file():
        raise InputError(f"there is no file {quoted(path)}.")
    stored = _safetensors(path) if suffix == ".safetensors" else _named(model, path, _pickled(path))
    wrong = _wrong(model, stored)
    missing, unexpected = ([], []) if wrong else model.load_state_dict(stored, strict=False)
    if missing or unexpected or wrong:
        said = [f"{what} {', '.join(names[:3])}{', ...' * (len(names) > 3)}" for what, names in
                (("it lacks", missing), ("the model lacks", unexpected), ("other shapes:", wrong)) if names]  # fmt: skip
        raise ModelStateError(f"{quoted(path.name)} does not fit {type(model).__name__}: {'; '.join(said)}.")


def _safetensors(path: Path) -> dict[str, Tensor]:
    safetensors = library("safetensors.torch", "weights need safetensors", "storage")
    try:
        return safetensors.load_file(path)
    except Exception as error:
        raise InputError(f"{quoted(path.name)} cannot be read as safetensors: {error}.") from error


def _pickled(path: Path) -> Any:
    """The content of a file of torch.save. It is refused if it holds anything that could run."""
    advice = "Load it where you trust it, and write torch.save(model.state_dict(), 'weights.pt')."
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old ways to write, which are read all the same
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        what = (
            f"{visible(named[1])}, which may run code when it is read" if named else "more than tensors, or is broken"
        )
        raise InputError(f"{quoted(path.name)} holds {what}. {advice}") from error
    except Exception as error:  # whatever torch raises, the file is at fault
        reason = visible(" ".join(str(error).split()).partition(". ")[0].rstrip("."))
        raise InputError(f"{quoted(path.name)} is broken: {reason}.") from error


def _named(model: nn.Module, path: Path, content: Any) -> dict[str, Tensor]:
    """The weights by name: taken out of a checkpoint, without the prefix of a wrapper."""
    if isinstance(content, Mapping) and not any(isinstance(one, Tensor) for one in content.values()):
        inside = [content[name] for name in _INSIDE if isinstance(content.get(name), Mapping)]
        content = inside[0] if inside else content
    if not isinstance(content, Mapping) or not content or not all(isinstance(one, Tensor) for one in content.values()):
        held = ", ".join(map(str, list(content)[:5])) if isinstance(content, Mapping) else type(content).__name__
        raise InputError(f"{quoted(path.name)} holds no weights by name: it holds {held}. Save model.state_dict().")
    found = {str(name): one for name, one in content.items()}
    own = set(model.state_dict())
    for prefix in _WRAPPED:
        if not own & set(found) and all(name.startswith(prefix) for name in found):
            found = {name.removeprefix(prefix): one for name, one in found.items()}
    return found


def _wrong(model: nn.Module, stored: dict[str, Tensor]) -> list[str]:
    own = model.state_dict()
    return [name for name, tensor in stored.items() if name in own and own[name].shape != tensor.shape]

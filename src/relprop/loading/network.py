"""A network that is ready to be explained, and its preprocessing of pictures."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from relprop.errors import InputError, ModelStateError, RelpropError
from relprop.zoo.images import as_seen, square, to_tensor

SAMPLE_TEXT = "The capital of France is Paris."
"""The text for a network that reads text, if none is given."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """A network that is ready to be explained.

    Attributes:
        name: its name, as the user wrote it.
        model: the module, in eval mode.
        labels: the names of its classes, or None.
        tensor: turns a picture into the network's input, `(1, C, H, W)`.
        seen: cuts out the part of a picture that the network sees.
        tokenizer: the tokenizer of a network that reads text; None for others.
        classes: whether it answers with classes; other networks of text answer with tokens.
    """

    name: str
    model: nn.Module
    labels: Sequence[str] | None
    tensor: Callable[[Image.Image], Tensor]
    seen: Callable[[Image.Image], Image.Image]
    tokenizer: Any = None
    classes: bool = True

    def bounds(self) -> tuple[Tensor, Tensor]:
        """The network's inputs for black and for white, (1, C, 1, 1) each: the bounds of pictures."""
        low, high = (self.tensor(Image.new("RGB", (32, 32), colour))[:, :, :1, :1] for colour in ("black", "white"))
        return low, high


@dataclass(frozen=True)
class Pictures:
    """How pictures become tensors, with defaults for models that do not tell. One number instead of three makes them grey."""

    size: int | None = None
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)


def picture_reading(
    model: nn.Module, pictures: Pictures, resize: int | None = None
) -> tuple[Callable[[Image.Image], Tensor], Callable[[Image.Image], Image.Image]]:
    """Functions from a picture to the tensor, and to the part of it that is seen: its centre, after resizing."""
    own = getattr(model, "size", None)
    size = pictures.size or (own if isinstance(own, int) else 224)
    part = 1.0 if resize is None else size / max(resize, size)

    def seen(image: Image.Image) -> Image.Image:
        return as_seen(square(image, size, part), pictures.mean)

    def tensor(image: Image.Image) -> Tensor:
        return to_tensor(seen(image), pictures.mean, pictures.std)

    return tensor, seen


def no_picture(image: Image.Image) -> Any:
    """Refuses a picture: the preprocessing of a network that reads text."""
    raise InputError("this network reads text, not pictures.")


def padded(tokenizer: Any) -> Any:
    """A tokenizer that can pad, if need be with its end-of-text token: a mask hides the padding."""
    if getattr(tokenizer, "pad_token", None) is None and getattr(tokenizer, "eos_token", None) is not None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def library(name: str, package: str) -> Any:
    """Imports a library, or raises an error that says why it cannot be used."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"models of {package} need it installed: pip install {package}", name=package
        ) from error
    except Exception as error:
        # torchvision, for example, fails like this if it was built for another torch.
        raise ModelStateError(f"{package} is installed, but cannot be imported: {error}") from error


@contextmanager
def taking(loaded: Loaded, inputs: Tensor, fix: str) -> Iterator[None]:
    """Turns the error of a network that cannot take an input into a message of one line.

    Raises:
        InputError: the network itself fails on the input.
    """
    try:
        yield
    except Exception as error:
        refused = isinstance(error, InputError) and error.__cause__ is not None  # by the network itself
        if isinstance(error, RelpropError) and not refused:
            raise
        try:
            with torch.no_grad():
                loaded.model(inputs)
        except Exception as own:
            shape = tuple(inputs.shape)
            raise InputError(f"{loaded.name} cannot take an input of shape {shape}: {own}. {fix}") from error
        raise


def sample_of(shape: Sequence[int]) -> Tensor:
    """Random numbers of a shape, the same in every run, for listing a network's operations."""
    if any(length < 1 for length in shape):
        raise InputError(f"--shape {','.join(map(str, shape))}: every axis is at least 1 long.")
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(0))

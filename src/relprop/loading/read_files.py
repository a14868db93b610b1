"""`relprop.read_image` and `relprop.read_volume`: from files to what a network takes, which remembers what people see."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from relprop.errors import InputError
from relprop.optional import library
from relprop.results.remembered import ReadTensor
from relprop.signatures import public
from relprop.zoo.images import as_seen, load_image, square, to_tensor

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_OFF = 0.02
"""How far beyond black and white a picture may lie after its normalisation was undone: resampling overshoots."""
_SUFFIXES = (".nii", ".nii.gz")
_LARGEST = 2**31


@public("relprop.read_image")
def read_image(
    path: Any,
    *,
    size: int | tuple[int, int] | None = 224,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    transform: Any = None,
) -> Tensor:
    """Reads a picture, or several, as a network's input (N, 3, H, W) or (N, 1, H, W), which remembers the pictures.

    The result behaves like any tensor. A map of it is drawn on the picture that the network saw, in its own colours.

    Args:
        path: a file, or a list of files; PNG, JPEG, WEBP, BMP, GIF (its first frame) or TIFF. A Pillow image is also taken.
        size: the side of the central square, to which the picture is resized; (height, width) resizes the whole picture
            without keeping its proportions; None keeps it as it is.
        mean: the mean of each colour, of values from 0 to 1, that is subtracted. None is that of ImageNet; for a network
            that takes values from 0 to 1, write mean=(0, 0, 0), std=(1, 1, 1). One number each, as in mean=(0.13,),
            std=(0.31,), makes grey pictures of one channel.
        std: the standard deviation of each colour, by which it is divided. None is that of ImageNet.
        transform: the network's own preprocessing instead of size, mean and std: a transform of torchvision or timm, a
            processor of transformers, or a function from a Pillow image to a tensor (3, H, W) or (1, H, W). Its mean and standard
            deviation are found in it; for a function that has none, give mean= and std=.

    Raises:
        InputError: a file is missing, broken or too large, an argument is not valid, the pictures differ in size, or the
            normalisation of the transform is not known.
    """
    paths = list(path) if isinstance(path, (list, tuple)) else [path]
    if not paths:
        raise InputError("the list of pictures is empty.")
    for name, value in (("mean", mean), ("std", std)):
        if value is not None and not _colours(value):
            raise InputError(
                f"{name} is three numbers, one for each colour, or (number,) for grey pictures; got {value!r}."
            )
    if len(mean or IMAGENET_MEAN) != len(std or IMAGENET_STD):
        raise InputError(f"mean and std need as many numbers as each other; got {mean!r} and {std!r}.")
    if std is not None and min(std) <= 0:
        raise InputError(f"std must be above 0; got {std!r}.")
    images = [_opened(one) for one in paths]
    if transform is not None:
        return _transformed(images, transform, mean, std)
    shaped = [_resized(image, size) for image in images]
    if len({image.size for image in shaped}) > 1:
        raise InputError(
            f"the pictures differ in size: {', '.join(f'{w} x {h}' for w, h in {i.size for i in shaped})}. Pass size=."
        )
    values = torch.cat([to_tensor(image, mean or IMAGENET_MEAN, std or IMAGENET_STD) for image in shaped])
    shown = [as_seen(image, mean or IMAGENET_MEAN) for image in shaped]
    seen = torch.stack([torch.from_numpy(np.array(image, dtype=np.uint8)).permute(2, 0, 1) for image in shown])
    return ReadTensor.of(values, seen)


@public("relprop.read_volume")
def read_volume(path: str | PathLike[str], *, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Reads a NIfTI volume, (1, 1, X, Y, Z) or (1, C, X, Y, Z), which remembers its place in space. Needs nibabel.

    Relevance of it is saved as NIfTI with the same affine map, `R.save("relevance.nii.gz")`, so any viewer can lay it over the volume.

    Args:
        path: a `.nii` or `.nii.gz` file.
        mean: is subtracted from each voxel.
        std: divides each voxel.

    Raises:
        InputError: the file is missing, broken, too large, or of another format.
    """
    if not isinstance(path, (str, PathLike)) or not str(path).lower().endswith(_SUFFIXES):
        raise InputError(f"a volume is a .nii or .nii.gz file; got {path!r}.")
    if not isinstance(std, (int, float)) or not isinstance(mean, (int, float)) or std <= 0:
        raise InputError(f"mean and std are numbers, and std is above 0; got {mean!r} and {std!r}.")
    place = Path(path)
    if not place.is_file():
        raise InputError(f"there is no file {str(path)!r}.")
    nibabel = library("nibabel", "NIfTI needs nibabel", "volumes")
    try:
        image = nibabel.load(place)
        shape = tuple(image.shape)
        if len(shape) not in (3, 4) or 0 in shape or int(np.prod(shape, dtype=np.int64)) * 4 > _LARGEST:
            raise InputError(
                f"{place.name!r} has the shape {shape}: a volume has three or four axes, and at most 2 GiB."
            )
        voxels = np.asarray(image.dataobj, dtype=np.float32)
        affine = np.array(image.affine, dtype=np.float64)
    except InputError:
        raise
    except Exception as error:  # whatever the decoder raises, the file is at fault
        raise InputError(f"{place.name!r} is not a NIfTI file that can be read: {error}.") from error
    values = torch.from_numpy(np.ascontiguousarray((voxels - mean) / std))
    values = values[None, None] if values.ndim == 3 else values.permute(3, 0, 1, 2)[None].contiguous()
    return ReadTensor.of(values, None, torch.from_numpy(affine))


def _colours(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) in (1, 3) and all(isinstance(v, (int, float)) for v in value)


def _opened(path: Any) -> Image.Image:
    if isinstance(path, Image.Image):
        return path.convert("RGB")
    if not isinstance(path, (str, PathLike)):
        raise InputError(f"read_image takes the path of a picture, or a list of them; got {type(path).__name__}.")
    return load_image(Path(path))


def _resized(image: Image.Image, size: Any) -> Image.Image:
    if size is None:
        return image
    if isinstance(size, tuple) and len(size) == 2 and all(isinstance(n, int) and n > 0 for n in size):
        return image.resize((size[1], size[0]), Image.Resampling.BICUBIC)
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise InputError(f"size is a side in pixels, (height, width), or None; got {size!r}.")
    return square(image, size, 1.0)


def _transformed(images: list[Image.Image], transform: Any, mean: Any, std: Any) -> Tensor:
    """The pictures through a network's own preprocessing. What people see is the result, with its normalisation undone."""
    found = [_of_one(image, transform) for image in images]
    if len({t.shape for t in found}) > 1:
        raise InputError("the transform gives pictures of different sizes; add one that resizes them.")
    values = torch.stack(found)
    known = (mean, std) if mean is not None and std is not None else _normalisation(transform)
    if known is None:
        if float(values.min()) < -_OFF or float(values.max()) > 1 + _OFF:
            raise InputError("the transform does not say how it normalises: give mean= and std= as well.")
        known = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    shown = (
        values * torch.tensor(known[1], dtype=values.dtype)[:, None, None]
        + torch.tensor(known[0], dtype=values.dtype)[:, None, None]
    )
    if float(shown.min()) < -_OFF or float(shown.max()) > 1 + _OFF:
        raise InputError(
            f"the transform does not normalise with mean {tuple(known[0])} and std {tuple(known[1])}: undoing them does not "
            "give a picture. Give those that it uses, mean= and std=."
        )
    return ReadTensor.of(values, (shown.clamp(0, 1) * 255).round().to(torch.uint8).expand(-1, 3, -1, -1))


def _of_one(image: Image.Image, transform: Any) -> Tensor:
    found = (
        transform(images=image, return_tensors="pt")
        if hasattr(transform, "image_mean") or hasattr(transform, "image_processor")
        else transform(image)
    )
    if hasattr(found, "keys"):
        if "pixel_values" not in found:
            raise InputError(f"the processor gives {', '.join(map(repr, found.keys()))}, and no pixel_values.")
        found = found["pixel_values"]
    if not isinstance(found, Tensor):
        raise InputError(f"the transform gives a {type(found).__name__}; it must give a tensor (3, H, W).")
    found = found[0] if found.ndim == 4 and len(found) == 1 else found
    if found.ndim != 3 or found.shape[0] not in (1, 3) or not found.is_floating_point():
        raise InputError(
            f"the transform gives {found.dtype} of shape {tuple(found.shape)}; it must give real numbers (3, H, W) or "
            "(1, H, W)."
        )
    return found.detach().cpu().float()


def _normalisation(transform: Any) -> tuple[Any, Any] | None:
    """The mean and standard deviation of a transform, where it tells."""
    inner = getattr(transform, "image_processor", transform)
    if hasattr(inner, "image_mean") and getattr(inner, "do_normalize", True):
        return inner.image_mean, inner.image_std
    found = None
    for step in (*getattr(transform, "transforms", ()), transform):
        mean, std = getattr(step, "mean", None), getattr(step, "std", None)
        if mean is not None and std is not None and not callable(mean):
            found = tuple(map(float, mean)), tuple(map(float, std))
    return found

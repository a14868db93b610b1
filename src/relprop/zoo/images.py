"""Turns a picture file into the tensor that EfficientNet-Lite takes. Files are not trusted."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from relprop.errors import InputError

try:
    import numpy as np
    from PIL import Image, ImageOps, UnidentifiedImageError
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "pictures need Pillow and NumPy: pip install 'relprop[images]'", name=error.name
    ) from error

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
MAX_BYTES = 64 * 2**20
MAX_PIXELS = 50_000_000  # a photograph from a large camera; 150 MB as RGB


def load_image(path: str | Path | io.BytesIO) -> Image.Image:
    """Opens a picture file, or one in memory, as RGB, upright. Its size and format are checked before anything is decoded.

    Only PNG, JPEG, WEBP, BMP, GIF (the first frame) and TIFF are tried, so that Pillow's rarer decoders never see the
    file. Transparent parts become white.

    Raises:
        InputError: the file is missing, too large, of another format, or broken.
    """
    named = Path("picture") if isinstance(path, io.BytesIO) else Path(path)
    if isinstance(path, io.BytesIO):
        size = len(path.getbuffer())
    elif named.is_file():
        size = named.stat().st_size
    else:
        raise InputError(f"there is no file '{path}'.")
    if size > MAX_BYTES:
        limit = MAX_BYTES // 2**20
        raise InputError(f"{named.name!r} has {size / 2**20:.0f} MiB, more than the {limit} MiB we open.")
    try:
        # Pillow reads only the header here. Its warning about huge pictures becomes our error below.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(path, formats=FORMATS)
    except UnidentifiedImageError as error:
        raise InputError(f"{named.name!r} is not a picture we open ({', '.join(FORMATS)}).") from error
    except Image.DecompressionBombError as error:
        raise _too_many_pixels(named) from error
    except Exception as error:
        # Any error of a decoder means that the file is at fault, here and below.
        raise InputError(f"{named.name!r} cannot be opened: {error}") from error
    with image:
        if image.width * image.height > MAX_PIXELS:
            raise _too_many_pixels(named)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about odd metadata, which does not matter here
                image.load()
                return _rgb_on_white(ImageOps.exif_transpose(image))
        except Exception as error:
            raise InputError(f"{named.name!r} is broken: {error}") from error


def square(image: Image.Image, size: int = 224, part: float = 0.875) -> Image.Image:
    """Cuts out the central square for a network, with this part of the shorter side (7/8 for `preprocess`)."""
    width, height = image.size
    side = part * min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    # Cutting and resizing in one step keeps a strip of 1 x 1,000,000 pixels small.
    box = (left, top, left + side, top + side)
    return _as_rgb(image).resize((size, size), Image.Resampling.BICUBIC, box=box)


def preprocess(image: Image.Image, size: int = 224) -> Tensor:
    """Turns a picture into the batch of one that EfficientNet-Lite takes: `(1, 3, size, size)`."""
    pixels = torch.from_numpy(np.array(square(image, size))).permute(2, 0, 1)[None].contiguous()
    return pixels.float().sub_(127.0).div_(128.0)


def to_tensor(image: Image.Image, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Turns a picture into a batch of one, `(1, 3, H, W)`: `(pixel / 255 - mean) / std` for each colour.

    One number for `mean` and for `std` makes a grey picture, `(1, 1, H, W)`.
    """
    pixels = torch.from_numpy(np.array(image.convert("L" if len(mean) == 1 else "RGB"), dtype=np.float32)) / 255.0
    pixels = pixels.reshape(*pixels.shape[:2], len(mean))
    return ((pixels - torch.tensor(mean)) / torch.tensor(std)).permute(2, 0, 1)[None].contiguous()


def as_seen(image: Image.Image, mean: Sequence[float]) -> Image.Image:
    """The picture as a network with that normalisation sees it: in grey if there is one number."""
    return image.convert("L").convert("RGB") if len(mean) == 1 else image


def _too_many_pixels(path: Path) -> InputError:
    millions = MAX_PIXELS // 1_000_000
    return InputError(f"{path.name!r} has more than the {millions} million pixels we decode; make it smaller first.")


def _rgb_on_white(image: Image.Image) -> Image.Image:
    if image.mode in ("I;16", "I;16L", "I;16B", "I", "F"):
        # Pillow would clip such values to 0..255; the picture's own range is mapped to it instead.
        image = _to_bytes(image)
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return _as_rgb(image)


def _as_rgb(image: Image.Image) -> Image.Image:
    """The picture itself if it is RGB: Pillow would copy it."""
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_bytes(image: Image.Image) -> Image.Image:
    values = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0, neginf=0.0)
    low, high = values.min(), values.max()
    span = high - low if high > low else 1.0
    return Image.fromarray(((values - low) / span * 255).astype(np.uint8))

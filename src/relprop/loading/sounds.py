"""Reads sounds from WAV files. Files are not trusted: sizes are judged before anything is decoded."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from relprop.errors import InputError
from relprop.loading.samples import check_file
from relprop.rendering.visible import quoted

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_MOST_CHANNELS = 64


@dataclass(frozen=True, eq=False)
class Sound:
    """A sound.

    Attributes:
        values: (C, T), float32; whole numbers are scaled to -1 to 1.
        rate: samples per second.
    """

    values: Tensor
    rate: int


def read_sound(path: Path, most: int = 2**27) -> Sound:
    """The sound in a WAV file: whole numbers of 8, 16, 24 or 32 bits, or floats of 32 or 64.

    Args:
        path: the file.
        most: the most numbers that are decoded, over all channels.

    Raises:
        InputError: the file is missing, too large, broken, or of another form.
    """
    check_file(path)
    name = quoted(path.name)
    content = path.read_bytes()
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        raise InputError(f"{name} is not a WAV file.")
    parts = _chunks(content)
    if b"fmt " not in parts or b"data" not in parts or len(parts[b"fmt "]) < 16:
        raise InputError(f"{name} is broken: a WAV file says its format, and then comes the sound.")
    form, channels, rate, _, block, bits = struct.unpack("<HHIIHH", parts[b"fmt "][:16])
    if form == _EXTENSIBLE and len(parts[b"fmt "]) >= 26:
        (form,) = struct.unpack("<H", parts[b"fmt "][24:26])
    if (form, bits) not in {*((_PCM, b) for b in (8, 16, 24, 32)), (_FLOAT, 32), (_FLOAT, 64)}:
        raise InputError(f"{name} is compressed, or has {bits} bits: save it as WAV with 16 bits.")
    if not 1 <= channels <= _MOST_CHANNELS or not 1 <= rate <= 10_000_000 or block != channels * bits // 8:
        raise InputError(f"{name} is broken: it says {channels} channels at {rate} Hz in blocks of {block} bytes.")
    data = parts[b"data"]
    steps = len(data) // block
    if not steps:
        raise InputError(f"{name} holds no sound.")
    if steps * channels > most:
        raise InputError(f"{name} has {steps * channels:,} numbers, more than the {most:,} we decode.")
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused
        values = np.array(_decoded(data[: steps * block], form, bits).reshape(steps, channels).T, np.float32, order="C")
    if not np.isfinite(values).all():
        raise InputError(f"{name} holds NaN or infinite values.")
    return Sound(torch.from_numpy(values), rate)


def _chunks(content: bytes) -> dict[bytes, bytes]:
    """The first chunk of each name. One that claims more than there is ends with the file."""
    found: dict[bytes, bytes] = {}
    at = 12
    while at + 8 <= len(content):
        name, (size,) = content[at : at + 4], struct.unpack("<I", content[at + 4 : at + 8])
        found.setdefault(name, content[at + 8 : at + 8 + size])
        at += 8 + size + size % 2
    return found


def _decoded(data: bytes, form: int, bits: int) -> np.ndarray:
    if form == _FLOAT:
        return np.frombuffer(data, "<f4" if bits == 32 else "<f8")
    if bits == 8:  # the only width without a sign
        return (np.frombuffer(data, np.uint8).astype(np.float64) - 128) / 128
    if bits == 24:
        parts = np.frombuffer(data, np.uint8).reshape(-1, 3).astype(np.int32)
        whole = parts[:, 0] | parts[:, 1] << 8 | parts[:, 2] << 16
        return np.where(whole >= 2**23, whole - 2**24, whole) / 2**23
    return np.frombuffer(data, "<i2" if bits == 16 else "<i4").astype(np.float64) / 2 ** (bits - 1)

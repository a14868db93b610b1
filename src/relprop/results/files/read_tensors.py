"""Reads the tensors of a safetensors file. The whole header is checked before any tensor is read.

The format is eight bytes with the length of the header, the header in JSON, and the numbers. `safetensors` writes it.
The reader here does not trust the file, and reads one tensor at a time, so that only the tensors take memory.
"""

from __future__ import annotations

import hashlib
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from relprop.results.files.bounded import exactly, opened, strict_json

# With some 200 bytes per tensor, this is enough for 80,000.
_HEADER = 16 * 2**20
_AXES = 32
_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "C64": torch.complex64,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


@dataclass(frozen=True)
class _Described:
    """The header's description of a tensor."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    stop: int


def read(path: Path, most: int) -> tuple[dict[str, Tensor], str]:
    """The tensors of a file, and the SHA-256 of the whole file.

    Args:
        path: a file in the format of safetensors.
        most: the largest size allowed, in bytes.

    Raises:
        ValueError: the file is of another format, too large or damaged, or holds what no result does.
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with opened(path, most) as (file, size):
        if size < 8:
            raise ValueError(f"{path.name} has {size} bytes, too few for a header")
        start = exactly(file, 8)
        length = int.from_bytes(start, "little")
        if length > min(_HEADER, size - 8):
            raise ValueError(f"{path.name} says that its header has {length:,} bytes")
        header = exactly(file, length)
        described = _described(strict_json(header), size - 8 - length)
        digest.update(start)
        digest.update(header)
        found = {}
        for each in described:
            content = exactly(file, each.stop - each.start)
            digest.update(content)
            found[each.name] = _tensor(content, each)
    return found, digest.hexdigest()


def _described(header: Any, size: int) -> list[_Described]:
    """The described tensors, in file order. They must cover the content without gap or overlap."""
    if not isinstance(header, dict):
        raise ValueError("the header of the tensors is not a table")
    found = sorted(
        (_one(name, about) for name, about in header.items() if name != "__metadata__"),
        key=lambda each: (each.start, each.stop),
    )
    end = 0
    for each in found:
        if each.start != end:
            raise ValueError(f"tensor {each.name[:80]!r} begins at byte {each.start:,}, the one before ends at {end:,}")
        end = each.stop
    if end != size:
        raise ValueError(f"the tensors have {end:,} bytes, the file holds {size:,}")
    return found


def _one(name: str, about: Any) -> _Described:
    shown = name[:80]
    if not isinstance(about, dict) or set(about) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"tensor {shown!r} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = about["dtype"], about["shape"], about["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise ValueError(f"tensor {shown!r} has the dtype {str(dtype)[:20]!r}, which no result has")
    if not _lengths(shape) or len(shape) > _AXES:
        raise ValueError(f"tensor {shown!r} has no shape")
    if not _lengths(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"tensor {shown!r} has no place in the file")
    count = math.prod(shape)
    # Strides are counted in 64 bits, even for a tensor without entries.
    if math.prod(max(length, 1) for length in shape) >= 2**48:
        raise ValueError(f"tensor {shown!r} has an impossible shape")
    if count * _DTYPES[dtype].itemsize != offsets[1] - offsets[0]:
        raise ValueError(
            f"tensor {shown!r} has {offsets[1] - offsets[0]:,} bytes, which do not fit its shape and dtype"
        )
    return _Described(name, _DTYPES[dtype], tuple(shape), *offsets)


def _lengths(value: Any) -> bool:
    """Whether this is a list of nonnegative integers."""
    return isinstance(value, list) and all(type(each) is int and each >= 0 for each in value)


def _tensor(content: bytearray, each: _Described) -> Tensor:
    if not content:
        return torch.empty(each.shape, dtype=each.dtype)
    raw = torch.frombuffer(content, dtype=torch.uint8)
    if sys.byteorder == "big":
        unit = torch.float32.itemsize if each.dtype.is_complex else each.dtype.itemsize
        raw = raw.reshape(-1, unit).flip(1).reshape(-1)
    if each.dtype == torch.bool and bool((raw > 1).any()):
        raise ValueError(f"tensor {each.name[:80]!r} holds values that are neither true nor false")
    return raw.view(each.dtype).reshape(each.shape)

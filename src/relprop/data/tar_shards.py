"""Tar files as sources, in the form of WebDataset: files of one sample share the start of their name."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from relprop.data.items import Item, Reading
from relprop.errors import InputError
from relprop.loading.samples import PICTURES
from relprop.rendering.visible import quoted
from relprop.zoo.images import load_image

_Member = tuple[Path, int, int]


def read_shards(paths: Sequence[Path], reading: Reading) -> tuple[list[str], Callable[[int], Item]]:
    """The keys of the samples in tar files, and a function that gives one. Only where they begin is held in memory.

    Raises:
        InputError: a file is not a tar file, it is compressed, or it is damaged.
    """
    samples: dict[tuple[Path, str], dict[str, _Member]] = {}
    for path in paths:
        try:
            with tarfile.open(path, "r:") as file:
                for member in file:
                    if member.isfile():
                        folder, _, name = member.name.rpartition("/")
                        stem, _, kind = name.partition(".")
                        key = f"{folder}/{stem}" if folder else stem
                        samples.setdefault((path, key), {})[kind.lower()] = (path, member.offset_data, member.size)
        except (tarfile.TarError, EOFError, OSError) as error:
            raise InputError(
                f"{quoted(path)} is not a tar file that can be read: {error}. It must not be compressed."
            ) from error
    found = list(samples.values())

    def one(n: int) -> Item:
        return _item(found[n], reading)

    return [key for _, key in samples], one


def _item(members: dict[str, _Member], reading: Reading) -> Item:
    columns: dict[str, Any] = {}
    if "json" in members:
        content = json.loads(_content(members["json"]))
        columns |= content if isinstance(content, dict) else {"json": content}
    for kind in ("cls", "label", "txt"):
        if kind in members:
            text = _content(members[kind]).decode().strip()
            columns["label" if kind == "cls" else kind] = int(text) if text.lstrip("-").isdigit() else text
    picture = next((kind for kind in members if f".{kind}" in PICTURES), None)
    if picture is not None:
        inputs = reading.picture(load_image(io.BytesIO(_content(members[picture]))))
    elif "npy" in members:
        inputs = reading.item(np.load(io.BytesIO(_content(members["npy"])), allow_pickle=False)).inputs
    else:
        raise InputError(f"it has no picture and no .npy, but {', '.join(members)}.")
    return Item(inputs, columns.get("label"), columns)


def _content(member: _Member) -> bytes:
    path, start, size = member
    with open(path, "rb") as file:
        file.seek(start)
        return file.read(size)

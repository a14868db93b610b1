"""Saved results damaged at random, with a seed: bytes, headers, manifests, and everything with a matching hash."""

from __future__ import annotations

import copy
import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

ODD: list[Any] = [
    None, True, False, 0, 1, -1, 3, 2**31, 2**63 - 1, 2**64, 10**30, 0.5, -0.0, 1e308, "", "x", "nan", "../x", "\x1b[2J",
    "\ud800", "a" * 5000, "<script>", "%s{0}", [], [[]], {}, {"tensor": "score.1"}, {"tensor": "x"}, {"tensor": 3},
    {"float": "nan"}, {"float": "1e5"}, {"float": "x"}, {"text": "<lambda>"}, {"text": 3}, {"tuple": []}, {"tuple": [1, 2]},
    {"tuple": [[1, 2]]}, {"dict": []}, {"dict": [[1, 2], [1, 3]]}, {"dict": [[[], 2]]}, {"dict": [["a"]]}, {"dict": "ab"},
    {"contrast": [1, 2]}, {"contrast": [1]}, {"contrast": [{"contrast": [1, 2]}, "a"]}, {"pickle": "x"}, {"a": 1, "b": 2},
    ["a", "b"], [1, 2], [True, 0.5], "float", float("nan"), float("inf"),
]  # fmt: skip
DTYPES = [
    "F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL", "C64", "F8_E4M3", "F8_E5M2",
    "F8_E8M0", "F4", "F6_E2M3", "C128", "f32", "", "OBJECT", 7, None,
]  # fmt: skip


def damage(source: Path, target: Path, dice: random.Random) -> str:
    """Writes a damaged copy of a saved result, and says how it was damaged."""
    target.mkdir(exist_ok=True)
    manifest = (source / "manifest.json").read_text(encoding="utf-8")
    tensors = (source / "tensors.safetensors").read_bytes()
    how = dice.choice(list(_WAYS))
    manifest, tensors = _WAYS[how](manifest, tensors, dice)
    if how in _OF_TENSORS and dice.random() < 0.9:  # else the hash alone gives it away
        before = json.loads(manifest)["tensors_sha256"]
        manifest = manifest.replace(before, hashlib.sha256(tensors).hexdigest())
    (target / "manifest.json").write_bytes(manifest.encode("utf-8", "surrogatepass"))
    (target / "tensors.safetensors").write_bytes(tensors)
    return how


def split(tensors: bytes) -> tuple[dict[str, Any], bytes]:
    """The header and the content of a safetensors file."""
    length = int.from_bytes(tensors[:8], "little")
    return json.loads(tensors[8 : 8 + length]), tensors[8 + length :]


def joined(header: Any, content: bytes) -> bytes:
    """A safetensors file with that header."""
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content


def _bytes(manifest: str, tensors: bytes, dice: random.Random) -> tuple[str, bytes]:
    """Some bytes of the file with tensors, most of them in its header."""
    changed = bytearray(tensors)
    header = 8 + int.from_bytes(tensors[:8], "little")
    for _ in range(dice.choice([1, 1, 2, 5])):
        end = dice.choice([8, header, header, len(changed)])
        changed[dice.randrange(end)] = dice.choice([0, 1, 34, 44, 48, 57, 91, 123, 125, 255, dice.randrange(256)])
    return manifest, bytes(changed)


def _cut(manifest: str, tensors: bytes, dice: random.Random) -> tuple[str, bytes]:
    at = dice.randrange(len(tensors))
    piece = tensors[at : at + dice.randrange(1, 40)]
    return manifest, dice.choice([tensors[:at], tensors[at:], tensors + piece, tensors.replace(piece, b"", 1), b""])


def _header(manifest: str, tensors: bytes, dice: random.Random) -> tuple[str, bytes]:
    """One value of the header, or one that keeps the number of bytes."""
    header, content = split(tensors)
    name = dice.choice(list(header))
    about = header[name]
    size = about["data_offsets"][1] - about["data_offsets"][0]
    what = dice.randrange(7)
    if what == 0:
        about["dtype"] = dice.choice(DTYPES)
    elif what == 1:
        about["shape"] = dice.choice(
            [
                [size // 4],
                [1, size // 4],
                [size // 8, 2],
                [1] * 40 + [size // 4],
                [-1],
                [2**62, 4],
                [0],
                [],
                "x",
                4,
                [True],
            ]
        )
    elif what == 2:
        about["data_offsets"] = dice.choice([[0, size], [size, 0], [-1, size], [0, 2**60], [0], "ab", None, [0.0, 8.0]])
    elif what == 3:
        header[dice.choice(["", "other", "__metadata__"])] = header.pop(name)
    elif what == 4:
        _replace(header, dice)
    elif what == 5:  # the same bytes, as another dtype of as many
        alike = {"F32": ["I32", "U32"], "F64": ["I64", "U64", "C64"], "I64": ["F64", "C64"], "F16": ["BF16", "I16"]}
        about["dtype"] = dice.choice(alike.get(about["dtype"], ["U8"]))
    else:  # one entry less or more, in a file that agrees with it
        for each in header.values():
            if each["shape"]:
                each["shape"] = dice.choice([each["shape"][::-1], [*each["shape"], 1], each["shape"]])
    return manifest, joined(header, content)


def _numbers(manifest: str, tensors: bytes, dice: random.Random) -> tuple[str, bytes]:
    """Any numbers at all in the place of those that were saved."""
    header, content = split(tensors)
    return manifest, joined(header, dice.randbytes(len(content)))


def _letters(manifest: str, tensors: bytes, dice: random.Random) -> tuple[str, bytes]:
    """Some letters of the manifest."""
    letters = list(manifest)
    for _ in range(dice.choice([1, 1, 3])):
        at = dice.randrange(len(letters))
        letters[at] = dice.choice(['"', ",", "]", "{", "0", "9", "-", "e", "\\", "\x00", "ÿ", "", letters[at] * 2])
    at = dice.randrange(len(letters))
    if dice.random() < 0.2:
        letters = dice.choice([letters[:at], letters[at:], ["["] * at, ['{"a":'] * at + ["1"] + ["}"] * at])
    return "".join(letters), tensors


def _value(manifest: str, tensors: bytes, dice: random.Random) -> tuple[str, bytes]:
    """Some values of the manifest, each of any type."""
    data = json.loads(manifest)
    for _ in range(dice.choice([1, 1, 1, 2, 4])):
        _replace(data, dice)
    text = json.dumps(data)
    if dice.random() < 0.05:
        text = text.replace('"kind"', '"kind": "text", "kind"')
    return text, tensors


def _content(manifest: str, tensors: bytes, dice: random.Random) -> tuple[str, bytes]:
    """A part of what is kept: any value, that of another part, or none."""
    data = json.loads(manifest)
    content = data["content"]
    name, other = dice.choice(list(content)), dice.choice(list(content))
    content[name] = dice.choice([dice.choice(ODD), content[other], [content[name]], {"tuple": [content[name]]}])
    if dice.random() < 0.2:
        del content[name]
    return json.dumps(data), tensors


def _replace(data: Any, dice: random.Random) -> None:
    """Replaces, removes, doubles or renames one value somewhere in a tree."""
    while True:
        keys = list(data) if isinstance(data, dict) else list(range(len(data)))
        if not keys:
            return
        key = dice.choice(keys)
        inner = data[key]
        if isinstance(inner, (dict, list)) and inner and dice.random() < 0.85:
            data = inner
            continue
        what = dice.randrange(6)
        if what == 0:
            del data[key]
        elif what == 1 and isinstance(data, list):
            data.insert(key, copy.deepcopy(inner))
        elif what == 1:
            data[dice.choice(["", "other"])] = data.pop(key)
        else:
            data[key] = copy.deepcopy(dice.choice(ODD))
        return


_OF_TENSORS: dict[str, Callable[[str, bytes, random.Random], tuple[str, bytes]]] = {
    "bytes": _bytes, "cut": _cut, "header": _header, "numbers": _numbers,
}  # fmt: skip
_WAYS = {**_OF_TENSORS, "letters": _letters, "value": _value, "content": _content}

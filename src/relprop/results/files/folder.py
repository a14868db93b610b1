"""A result as a folder: `tensors.safetensors` and `manifest.json`. `loading` reads it back."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from relprop.composites import Composite, Place
from relprop.errors import CompositeError
from relprop.optional import library
from relprop.results.files import atomic
from relprop.results.files.encoding import as_json, encode
from relprop.results.files.fingerprint import weights_sha256
from relprop.results.protocol import Result
from relprop.rules import Rule
from relprop.version import versions

MANIFEST, TENSORS = "manifest.json", "tensors.safetensors"
FORMAT = 1


@dataclass(frozen=True)
class RecordedRule(Rule):
    """The record of a rule. It says what acted, and cannot act again."""

    families: ClassVar[frozenset[str]] = frozenset()
    text: str = ""

    def __repr__(self) -> str:
        return self.text


class RecordedComposite(Composite):
    """The record of a composite: its name and its table. It cannot act again."""

    def __init__(self, name: str, text: str, multiply_by_inputs: bool) -> None:
        super().__init__(name=name, multiply_by_inputs=multiply_by_inputs)
        self.text = text

    def rule(self, place: Place) -> Any:
        """Raises CompositeError: a record cannot be used to explain."""
        raise CompositeError(
            f"the composite {self.name!r} was loaded from a file, which records what it did: build it anew to use it."
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RecordedComposite) and (self.name, self.text) == (other.name, other.text)

    def __hash__(self) -> int:
        return hash((self.name, self.text))

    def __str__(self) -> str:
        return self.text


def save_folder(result: Result, path: Path, *, inputs: bool = True) -> None:
    """Writes the folder. `inputs=False` leaves out a copy of the inputs that the result holds."""
    safetensors = _safetensors()
    tensors: dict[str, Tensor] = {}
    kept = result.kept()
    if not inputs and "inputs" in kept:
        kept |= {name: None for name in ("inputs", "pictures") if name in kept}
    kept |= {"unknown": result.unknown, "ledger": [vars(entry) for entry in result.ledger.entries]}
    kept["notices"] = list(result.notices)
    content = {name: encode(part, name, tensors) for name, part in kept.items()}
    stored = safetensors.save(tensors)
    manifest = {
        "format": "relprop",
        "format_version": FORMAT,
        "kind": result.kind,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": versions(),
        "model": _model(result),
        "composite": {
            "name": result.composite.name,
            "table": str(result.composite),
            "multiply_by_inputs": result.composite.multiply_by_inputs,
        },
        "rules": [_placed(place, rule) for place, rule in result.rules],
        "tensors_sha256": hashlib.sha256(stored).hexdigest(),
        "content": content,
    }
    with atomic.folder(path, MANIFEST) as part:
        atomic.write(part / TENSORS, stored)
        atomic.write(part / MANIFEST, as_json(manifest, indent=1))


def _placed(place: Place, rule: Rule | None) -> dict[str, Any]:
    return {
        "operation": place.name,
        "family": place.family,
        "module": place.paths[0] if place.paths else "",
        "index": place.index,
        "last": place.last,
        "merged": place.merged,
        "rule": None if rule is None else repr(rule),
    }


def _model(result: Result) -> dict[str, Any] | None:
    if result.model is None:
        return None
    model = result.model.find()
    # The hash is of the weights at the time of saving: training since the explanation changes it.
    digest = weights_sha256(model) if model is not None else result.model.weights_sha256
    return {"name": result.model.name, "parameters": result.model.parameters, "weights_sha256": digest}


def _safetensors() -> Any:
    return library("safetensors.torch", "folders need safetensors", "storage")

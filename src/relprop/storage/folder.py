"""A result as a folder: `tensors.safetensors` and `manifest.json`; and back."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime, timezone
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from relprop.attribution import Relevance
from relprop.attribution.identity import Identity
from relprop.composites import Composite, Place
from relprop.engine.ledger import Entry, Ledger
from relprop.errors import CompositeError, InputError
from relprop.rules import Rule
from relprop.signatures import public
from relprop.storage import atomic, texts
from relprop.storage.encoding import as_json, decode, encode
from relprop.storage.fingerprint import weights_sha256
from relprop.text import GenerationRelevance, TextRelevance

MANIFEST, TENSORS = "manifest.json", "tensors.safetensors"
FORMAT = 1
# A manifest is read into memory; that of the largest result of a network of 10,000 operations has 2 MB.
_LARGEST = 64 * 2**20
Stored = Relevance | TextRelevance | GenerationRelevance
# What is kept of a result beside its inputs, its ledger, and how it was made.
_KEPT = ("values", "output", "score", "target", "residual", "layers", "labels", "positions")
# What is kept of each line of a ledger.
_ENTRY = ("family", "name", "where", "absorbed")


@dataclass(frozen=True)
class RecordedRule(Rule):
    """A rule as it was written down. It says what acted; it cannot act again."""

    families: ClassVar[frozenset[str]] = frozenset()
    text: str = ""

    def __repr__(self) -> str:
        return self.text


class RecordedComposite(Composite):
    """A composite as it was written down: its name and its table. It cannot act again."""

    def __init__(self, name: str, text: str, multiply_by_inputs: bool) -> None:
        super().__init__(name=name, multiply_by_inputs=multiply_by_inputs)
        self.text = text

    def rule(self, place: Place) -> Any:
        """Refuses: a record is no composite to explain with."""
        raise CompositeError(
            f"the composite {self.name!r} was loaded from a file, which records what it did: build it anew to use it."
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RecordedComposite) and (self.name, self.text) == (other.name, other.text)

    def __hash__(self) -> int:
        return hash((self.name, self.text))

    def __str__(self) -> str:
        return self.text


def save_folder(result: Stored, path: Path, *, inputs: bool = True) -> None:
    """Writes the folder; `inputs=False` leaves the inputs out, which a result of tensors otherwise carries along."""
    safetensors = _safetensors()
    tensors: dict[str, Tensor] = {}
    if isinstance(result, Relevance):
        kind, kept = "relevance", {name: getattr(result, name) for name in _KEPT}
        kept["inputs"] = result.inputs if inputs else None
    else:
        kind, kept = texts.kept(result)
    kept |= {"unknown": result.unknown, "ledger": [vars(entry) for entry in result.ledger.entries]}
    content = {name: encode(part, name, tensors) for name, part in kept.items()}
    stored = safetensors.save(tensors)
    manifest = {
        "format": "relprop",
        "format_version": FORMAT,
        "kind": kind,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": _versions(),
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


@public("relprop.load")
def load(path: str | PathLike[str]) -> Any:
    """Reads a result that `save` wrote into a folder.

    Nothing in it is executed or imported: composite, rules and a callable target come back as records of what they were.

    Args:
        path: the folder.

    Returns:
        The `Relevance`, `TextRelevance` or `GenerationRelevance` that was saved, on the CPU.

    Raises:
        InputError: there is no saved result, it is damaged, or a newer version wrote it.
    """
    if not isinstance(path, (str, PathLike)):
        raise InputError(f"path is a folder that R.save wrote; got {path!r}.")
    place = Path(path)
    if not (place / MANIFEST).is_file():
        raise InputError(f"{str(path)!r} is no saved result: it holds no {MANIFEST}. R.save('folder/') makes one.")
    safetensors = _safetensors()
    try:
        if (place / MANIFEST).stat().st_size > _LARGEST:
            raise ValueError(f"{MANIFEST} is larger than {_LARGEST // 2**20} MiB")
        manifest = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != "relprop":
            raise ValueError(f"its format is {manifest['format']!r}")
        if manifest["format_version"] > FORMAT:
            raise InputError(
                f"{str(path)!r} was written in format {manifest['format_version']}, this version reads up to {FORMAT}: "
                "update relprop."
            )
        stored = (place / TENSORS).read_bytes()
        if hashlib.sha256(stored).hexdigest() != manifest["tensors_sha256"]:
            raise ValueError(f"{TENSORS} is not the one that was written with this manifest")
        return _result(manifest, safetensors.load(stored))
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, OSError) as error:
        raise InputError(f"{str(path)!r} cannot be loaded: {type(error).__name__}: {error}.") from error


def _result(manifest: dict[str, Any], tensors: dict[str, Tensor]) -> Stored:
    content = {name: decode(data, tensors) for name, data in manifest["content"].items()}
    composite, model = manifest["composite"], manifest["model"]
    made: dict[str, Any] = {
        "composite": RecordedComposite(
            str(composite["name"]), str(composite["table"]), bool(composite["multiply_by_inputs"])
        ),
        "rules": [_recorded(entry) for entry in manifest["rules"]],
        "model": None
        if model is None
        else Identity(str(model["name"]), int(model["parameters"]), model["weights_sha256"]),
        "unknown": content["unknown"],
        "ledger": Ledger([Entry(**{name: entry[name] for name in _ENTRY}) for entry in content["ledger"]]),
    }
    kind = manifest["kind"]
    if kind != "relevance":
        return texts.restored(kind, content, made)
    for name in ("score", "residual"):
        if not isinstance(content[name], Tensor):
            raise ValueError(f"{name} is no tensor")
    return Relevance(**{name: content[name] for name in (*_KEPT, "inputs")}, **made)


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


def _recorded(entry: dict[str, Any]) -> tuple[Place, Rule | None]:
    # A place names its operation by a function; here there is only its name.
    operation: Any = str(entry["operation"])
    paths = (str(entry["module"]),)
    place = Place(
        str(entry["family"]), operation, None, paths, entry["index"], entry["last"], merged=entry.get("merged") is True
    )
    return place, None if entry["rule"] is None else RecordedRule(str(entry["rule"]))


def _model(result: Stored) -> dict[str, Any] | None:
    if result.model is None:
        return None
    model = result.model.find()
    # The weights as they are now: whoever trains between explaining and saving hashes another network.
    digest = weights_sha256(model) if model is not None else result.model.weights_sha256
    return {"name": result.model.name, "parameters": result.model.parameters, "weights_sha256": digest}


def _versions() -> dict[str, str]:
    from relprop.rendering.report import versions

    return versions()


def _safetensors() -> Any:
    try:
        import safetensors.torch as module
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "folders need safetensors: pip install 'relprop[storage]'", name="safetensors"
        ) from error
    return module

"""Turns the argument of `--model` into a network."""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import nn

from relprop.attribution.targets import known_labels
from relprop.errors import InputError, ModelStateError
from relprop.loading.hub import from_transformers
from relprop.loading.network import Loaded, Pictures, library, no_picture, padded, picture_reading
from relprop.loading.weights import load_weights
from relprop.zoo import efficientnet_lite0
from relprop.zoo.efficientnet_lite import imagenet_classes
from relprop.zoo.images import preprocess, square

DEFAULT = "efficientnet_lite0"
SOURCES = ("torchvision:NAME", "timm:NAME", "hf:NAME or hf:FOLDER", "module.path:factory")


def may_read_text(spec: str) -> bool:
    """Whether a network may read text. Only the loaded network tells; until then an input may be a text or a file."""
    source, _, name = spec.partition(":")
    return bool(name) and source not in ("torchvision", "timm")


def load(spec: str, weights: Path | None = None, pictures: Pictures | None = None, trusted: bool = False) -> Loaded:
    """Loads the network of a specification.

    Args:
        spec: "efficientnet_lite0", or one of the forms in `SOURCES`.
        weights: a file with its weights; None takes those that come with the model.
        pictures: overrides size and normalisation.
        trusted: whether a model of transformers may run code that comes with it, and have pickled weights.

    Raises:
        InputError: there is no such model or file, an option does not fit the model, or the model comes with code and
            is not trusted.
        ModelStateError: the weights do not fit the model, or it cannot be made.
        ModuleNotFoundError: the library that it comes from is not installed.
    """
    source, _, name = spec.partition(":")
    if trusted and source != "hf":
        raise InputError(f"--trust-remote-code is for models of transformers, hf:NAME or hf:FOLDER; got {spec!r}.")
    if spec == DEFAULT:
        if weights is not None or pictures is not None:
            raise InputError(
                "efficientnet_lite0 comes with its weights and its way of reading pictures: leave out the rest."
            )
        known = efficientnet_lite0()
        return Loaded(spec, known, known.labels, preprocess, square)
    if not name:
        raise InputError(f"there is no model {spec!r}: write {DEFAULT}, {', or '.join(SOURCES)}.")
    with _unasked():
        if source == "hf":
            found = from_transformers(spec, name, weights is None, trusted)
        else:
            maker = {"torchvision": _torchvision, "timm": _timm}.get(source, _factory)
            found = maker(spec, source, name, weights is None)
    model = found.model
    if weights is not None:
        load_weights(model, weights)
    model.eval()
    if pictures is None:
        return found
    if found.tokenizer is not None:
        raise InputError(f"--size, --mean and --std are for pictures; {spec} reads text.")
    return Loaded(spec, model, found.labels, *picture_reading(model, pictures))


def _torchvision(spec: str, source: str, name: str, pretrained: bool) -> Loaded:
    models = library("torchvision.models", "torchvision")
    try:
        chosen = models.get_model_weights(name).DEFAULT
        model = models.get_model(name, weights=chosen if pretrained else None)
    except ValueError as error:
        raise InputError(f"torchvision has no model {name!r}; torchvision.models.list_models() names them.") from error
    labels = chosen.meta.get("categories")
    transform = chosen.transforms()
    size = int(transform.crop_size[0])
    reading = picture_reading(
        model, Pictures(size, tuple(transform.mean), tuple(transform.std)), int(transform.resize_size[0])
    )
    return Loaded(spec, model, labels if labels and _outputs(model) in (None, len(labels)) else None, *reading)


def _timm(spec: str, source: str, name: str, pretrained: bool) -> Loaded:
    timm = library("timm", "timm")
    if not timm.is_model(name.partition(".")[0]):
        raise InputError(f"timm has no model {name!r}; timm.list_models('*word*') finds them.")
    model = timm.create_model(name, pretrained=pretrained)
    config = timm.data.resolve_model_data_config(model)
    size = int(config["input_size"][-1])
    pictures = Pictures(size, tuple(config["mean"]), tuple(config["std"]))
    labels = imagenet_classes() if getattr(model, "num_classes", 0) == 1000 else None
    return Loaded(
        spec, model, labels, *picture_reading(model, pictures, round(size / float(config.get("crop_pct") or 1.0)))
    )


@contextmanager
def _unasked() -> Iterator[None]:
    """Keeps stdin from the code that loads a model: piped input is a text, never the answer to a question."""
    before, sys.stdin = sys.stdin, io.StringIO()
    try:
        yield
    finally:
        sys.stdin = before


def _factory(spec: str, source: str, name: str, pretrained: bool) -> Loaded:
    # As with `python -m`, a file in the current folder is found.
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(source)
    except ModuleNotFoundError as error:
        if error.name and not source.startswith(error.name):
            raise
        raise InputError(f"there is no module {source!r} to import {name!r} from: {error}.") from error
    factory = getattr(module, name, None)
    if not callable(factory):
        raise InputError(f"{source!r} has no callable {name!r} that makes a model.")
    try:
        model = factory()
    except Exception as error:
        raise ModelStateError(f"{spec} failed: {type(error).__name__}: {error}") from error
    tokenizer = None
    if isinstance(model, tuple) and len(model) == 2:
        model, tokenizer = model
    if not isinstance(model, nn.Module):
        raise InputError(
            f"{spec} gave {type(model).__name__}; it must give a torch.nn.Module, or a tuple of one and its tokenizer."
        )
    if tokenizer is not None:
        return Loaded(spec, model, known_labels(model), no_picture, no_picture, padded(tokenizer), classes=False)
    return Loaded(spec, model, known_labels(model), *picture_reading(model, Pictures()))


def _outputs(model: nn.Module) -> int | None:
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    return layers[-1].out_features if layers else None

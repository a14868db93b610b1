"""From what is written after `--model` to a network, its classes, and how pictures are given to it."""

from __future__ import annotations

import importlib
import io
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from relprop.attribution.targets import known_labels
from relprop.errors import InputError, ModelStateError, RelpropError
from relprop.zoo import efficientnet_lite0
from relprop.zoo.efficientnet_lite import imagenet_classes
from relprop.zoo.images import preprocess, square, to_tensor

DEFAULT = "efficientnet_lite0"
# Which class of transformers loads a model, by what the name of its own class ends in.
_TASKS = {
    "ForImageClassification": "AutoModelForImageClassification",
    "ForSequenceClassification": "AutoModelForSequenceClassification",
    "ForMaskedLM": "AutoModelForMaskedLM",
    "ForQuestionAnswering": "AutoModelForQuestionAnswering",
    "ForConditionalGeneration": "AutoModelForSeq2SeqLM",
    "ForCausalLM": "AutoModelForCausalLM",
    "LMHeadModel": "AutoModelForCausalLM",
}
SOURCES = ("torchvision:NAME", "timm:NAME", "hf:NAME or hf:FOLDER", "module.path:factory")


@dataclass(frozen=True, eq=False)
class Loaded:
    """A network that is ready to be explained.

    Attributes:
        name: as it was asked for.
        model: in eval mode.
        labels: names of its classes, or None.
        tensor: a picture as the network takes it, `(1, C, H, W)`.
        seen: the part of a picture that the network sees.
        tokenizer: of a network that reads text; None for others.
        classes: whether it answers with classes, by name or number; other networks of text answer with tokens.
    """

    name: str
    model: nn.Module
    labels: Sequence[str] | None
    tensor: Callable[[Image.Image], Tensor]
    seen: Callable[[Image.Image], Image.Image]
    tokenizer: Any = None
    classes: bool = True


SAMPLE_TEXT = "The capital of France is Paris."
"""What a network of texts reads where none is given."""


@dataclass(frozen=True)
class Pictures:
    """How pictures become tensors, where a model does not say."""

    size: int | None = None
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)


def may_read_text(spec: str) -> bool:
    """Whether a network may be one of texts: what is no file then is a text, which only the loaded network tells."""
    source, _, name = spec.partition(":")
    return bool(name) and source not in ("torchvision", "timm")


def load(spec: str, weights: Path | None = None, pictures: Pictures | None = None, trusted: bool = False) -> Loaded:
    """The network of a specification.

    Args:
        spec: "efficientnet_lite0", or one of `SOURCES`.
        weights: a safetensors file with its weights; None takes those that come with the model.
        pictures: overrides size and normalisation.
        trusted: whether a model of transformers may run code that comes with it, and have pickled weights.

    Raises:
        InputError: there is no such model, or no such file; or the model comes with code and is not trusted.
        ModelStateError: the file does not fit the model.
        ModuleNotFoundError: the library it comes from is not installed.
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
            found = _transformers(spec, name, weights is None, trusted)
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
    return Loaded(spec, model, found.labels, *_reading(model, pictures))


def load_weights(model: nn.Module, path: Path) -> None:
    """Loads a safetensors file into a model; every name must fit."""
    if path.suffix != ".safetensors":
        raise InputError(
            f"{path.name!r} is no .safetensors file. Others may run code when they are read: load it where you trust it, and "
            "write safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')."
        )
    if not path.is_file():
        raise InputError(f"there is no file {str(path)!r}.")
    try:
        from safetensors.torch import load_file
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("weights need safetensors: pip install safetensors", name="safetensors") from error
    try:
        stored = load_file(path)
    except Exception as error:
        raise InputError(f"{path.name!r} cannot be read as safetensors: {error}.") from error
    missing, unexpected = model.load_state_dict(stored, strict=False) if not _wrong(model, stored) else ([], [])
    wrong = _wrong(model, stored)
    if missing or unexpected or wrong:
        said = [f"{what} {', '.join(names[:3])}{', ...' * (len(names) > 3)}" for what, names in
                (("it lacks", missing), ("the model lacks", unexpected), ("other shapes:", wrong)) if names]  # fmt: skip
        raise ModelStateError(f"{path.name!r} does not fit {type(model).__name__}: {'; '.join(said)}.")


def _wrong(model: nn.Module, stored: dict[str, Tensor]) -> list[str]:
    own = model.state_dict()
    return [name for name, tensor in stored.items() if name in own and own[name].shape != tensor.shape]


def _torchvision(spec: str, source: str, name: str, pretrained: bool) -> Loaded:
    models = _library("torchvision.models", "torchvision")
    try:
        chosen = models.get_model_weights(name).DEFAULT
        model = models.get_model(name, weights=chosen if pretrained else None)
    except ValueError as error:
        raise InputError(f"torchvision has no model {name!r}; torchvision.models.list_models() names them.") from error
    labels = chosen.meta.get("categories")
    transform = chosen.transforms()
    size = int(transform.crop_size[0])
    reading = _reading(
        model, Pictures(size, tuple(transform.mean), tuple(transform.std)), int(transform.resize_size[0])
    )
    return Loaded(spec, model, labels if labels and _outputs(model) in (None, len(labels)) else None, *reading)


def _timm(spec: str, source: str, name: str, pretrained: bool) -> Loaded:
    timm = _library("timm", "timm")
    if not timm.is_model(name.partition(".")[0]):
        raise InputError(f"timm has no model {name!r}; timm.list_models('*word*') finds them.")
    model = timm.create_model(name, pretrained=pretrained)
    config = timm.data.resolve_model_data_config(model)
    size = int(config["input_size"][-1])
    pictures = Pictures(size, tuple(config["mean"]), tuple(config["std"]))
    labels = imagenet_classes() if getattr(model, "num_classes", 0) == 1000 else None
    return Loaded(spec, model, labels, *_reading(model, pictures, round(size / float(config.get("crop_pct") or 1.0))))


@contextmanager
def _unasked() -> Iterator[None]:
    """Nobody is asked anything while a model is loaded: what is piped in is a text, never the answer to a question."""
    before, sys.stdin = sys.stdin, io.StringIO()
    try:
        yield
    finally:
        sys.stdin = before


def _transformers(spec: str, name: str, pretrained: bool, trusted: bool) -> Loaded:
    transformers = _library("transformers", "transformers")
    # Said to each call below; where one is told nothing, this keeps it from asking, and from taking silence for a yes.
    transformers.dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0
    # What it says while it looks and loads would stand among our own progress.
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    local = Path(name).is_dir()
    if not local and name.startswith((".", "/", "~")):
        raise InputError(f"there is no folder {name!r} with a model.")
    given: dict[str, Any] = {"local_files_only": local, "trust_remote_code": trusted}
    with _loading(f"transformers finds no model {name!r}", name):
        config = transformers.AutoConfig.from_pretrained(name, **given)
    if not trusted:
        _check_kernels(config, name)
    kinds = getattr(config, "architectures", None) or []
    ending = next((ending for ending in _TASKS if any(kind.endswith(ending) for kind in kinds)), None)
    if ending is None:
        raise InputError(
            f"{name!r} is {', '.join(kinds) or 'of no known kind'}: this command explains classifiers of images and texts, "
            "language models, and models that fill masks or answer questions."
        )
    auto = getattr(transformers, _TASKS[ending])
    if local and pretrained and not trusted:
        _check_pickles(Path(name))
    with _loading(f"transformers cannot load {name!r}", name):
        if pretrained:
            model = auto.from_pretrained(name, **given, **({} if trusted else {"use_safetensors": True}))
        else:
            model = auto.from_config(config, trust_remote_code=trusted)
    if any(p.dtype in (torch.float16, torch.bfloat16) for p in model.parameters()):
        model = model.float()  # made for accelerators; here it would be slow, and less exact
    if ending != "ForImageClassification":
        classes = ending == "ForSequenceClassification"
        labels = known_labels(model) if classes else None
        return Loaded(spec, model, labels, _no_picture, _no_picture, _tokenizer(transformers, name, given), classes)
    size = getattr(config, "image_size", 224)
    size = size[-1] if isinstance(size, (list, tuple)) and size else size
    if type(size) is not int or size < 1:
        raise InputError(f"{name!r} says that its pictures have the size {size!r}: --size is the side that they have.")
    try:
        said = transformers.AutoImageProcessor.from_pretrained(name, **given)
        pictures = Pictures(size, tuple(said.image_mean), tuple(said.image_std))
    except (OSError, ValueError, AttributeError) as error:
        if _OF_CODE in str(error):  # it says how pictures are read, in code
            raise InputError(_with_code(name)) from error
        pictures = Pictures(size)
    return Loaded(spec, model, known_labels(model), *_reading(model, pictures, size))


# What transformers tells those to write who would run the code of a model.
_OF_CODE = "trust_remote_code=True"


def _with_code(name: str) -> str:
    return (
        f"{name!r} comes with code of its own, which nothing here has run. Read it; if you trust it, --trust-remote-code "
        "runs it."
    )


@contextmanager
def _loading(what: str, name: str) -> Iterator[None]:
    """Says in a line why a model cannot be loaded: its files may hold anything, and raise anything.

    Raises:
        InputError: it cannot.
    """
    try:
        yield
    except (RelpropError, ModuleNotFoundError):
        raise
    except Exception as error:
        if _OF_CODE in str(error):
            raise InputError(_with_code(name)) from error
        raise InputError(f"{what}: {error}") from error


def _check_pickles(folder: Path) -> None:
    """Refuses a folder whose weights are all pickles."""
    pickles = sorted(
        path.name for path in folder.glob("*.bin") if path.name.startswith(("pytorch_model", "adapter_model"))
    )
    if pickles and not any(folder.glob("*.safetensors")):
        raise InputError(
            f"{str(folder)!r} holds its weights as a pickle, {pickles[0]}, which may run code when it is read. "
            "model.save_pretrained(folder) writes them as safetensors, where you trust them; or --trust-remote-code reads them."
        )


def _check_kernels(config: Any, name: str) -> None:
    """Refuses a configuration that takes its attention, or another part, from a repository of code."""
    for part in (config, *(value for value in vars(config).values() if hasattr(value, "to_dict"))):
        for key, value in vars(part).items():
            if "implementation" in key and "/" in str(value):
                raise InputError(
                    f"{name!r} takes {key.strip('_')} from {str(value)!r}, which is code. Read it; if you trust it, "
                    "--trust-remote-code runs it."
                )


def _tokenizer(transformers: Any, name: str, given: dict[str, Any]) -> Any:
    """The tokenizer that lies beside a model."""
    hint = "save it there: tokenizer.save_pretrained(folder)."
    with _loading(f"{name!r} holds no tokenizer that can be loaded; {hint} It was said", name):
        found = transformers.AutoTokenizer.from_pretrained(name, **given)
    # Where its files are missing, some are made without a vocabulary: every word would be unknown.
    if len(found) <= len(set(found.all_special_ids)):
        raise InputError(f"{name!r} holds no tokenizer, only a model; {hint}")
    return padded(found)


def padded(tokenizer: Any) -> Any:
    """A tokenizer that can pad: the end of a text does, for a mask hides it."""
    if getattr(tokenizer, "pad_token", None) is None and getattr(tokenizer, "eos_token", None) is not None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _no_picture(image: Image.Image) -> Any:
    raise InputError("this network reads text, not pictures.")


def _factory(spec: str, source: str, name: str, pretrained: bool) -> Loaded:
    # As `python -m` does: a file in the folder one works in is found.
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
        return Loaded(spec, model, known_labels(model), _no_picture, _no_picture, padded(tokenizer), classes=False)
    return Loaded(spec, model, known_labels(model), *_reading(model, Pictures()))


def _reading(
    model: nn.Module, pictures: Pictures, resize: int | None = None
) -> tuple[Callable[[Image.Image], Tensor], Callable[[Image.Image], Image.Image]]:
    """A picture as a tensor, and the part of it that is seen: its middle, after resizing the shorter side."""
    own = getattr(model, "size", None)
    size = pictures.size or (own if isinstance(own, int) else 224)
    part = 1.0 if resize is None else size / max(resize, size)

    def seen(image: Image.Image) -> Image.Image:
        return square(image, size, part)

    def tensor(image: Image.Image) -> Tensor:
        return to_tensor(seen(image), pictures.mean, pictures.std)

    return tensor, seen


def _outputs(model: nn.Module) -> int | None:
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    return layers[-1].out_features if layers else None


def _library(name: str, package: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"models of {package} need it installed: pip install {package}", name=package
        ) from error
    except Exception as error:
        # As torchvision does where it was built for another torch.
        raise ModelStateError(f"{package} is installed, but cannot be imported: {error}") from error


@contextmanager
def taking(loaded: Loaded, inputs: Tensor, fix: str) -> Iterator[None]:
    """Says it in a line where a network cannot take an input: what it raises by itself is no fault of ours.

    Raises:
        InputError: it cannot.
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
    """Numbers of a shape, the same in every run, for a look at what a network is made of."""
    if any(length < 1 for length in shape):
        raise InputError(f"--shape {','.join(map(str, shape))}: every axis is at least 1 long.")
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(0))

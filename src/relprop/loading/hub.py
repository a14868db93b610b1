"""Models of transformers. Their files may come from anyone: without consent, no code is run and no pickle is read."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from relprop.attribution.targets import known_labels
from relprop.errors import InputError, RelpropError
from relprop.loading.network import Loaded, Pictures, library, no_picture, padded, picture_reading

# The class of transformers that loads a model, by the end of its own class's name.
_TASKS = {
    "ForImageClassification": "AutoModelForImageClassification",
    "ForSequenceClassification": "AutoModelForSequenceClassification",
    "ForMaskedLM": "AutoModelForMaskedLM",
    "ForQuestionAnswering": "AutoModelForQuestionAnswering",
    "ForConditionalGeneration": "AutoModelForSeq2SeqLM",
    "ForCausalLM": "AutoModelForCausalLM",
    "LMHeadModel": "AutoModelForCausalLM",
}


def from_transformers(spec: str, name: str, pretrained: bool, trusted: bool) -> Loaded:
    """A model of transformers, with its tokenizer or the preprocessing of its pictures.

    Raises:
        InputError: there is no such model, it cannot be loaded, or it comes with code or pickles and is not trusted.
    """
    transformers = library("transformers", "transformers")
    # Each call below is given trust_remote_code. Where an inner call is not, this keeps transformers from asking, and
    # from taking silence for consent.
    transformers.dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0
    # Its messages while it loads would mix with our own progress.
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
        model = model.float()  # half precision is for accelerators; here it would be slow and less exact
    if ending != "ForImageClassification":
        classes = ending == "ForSequenceClassification"
        labels = known_labels(model) if classes else None
        return Loaded(spec, model, labels, no_picture, no_picture, _tokenizer(transformers, name, given), classes)
    size = getattr(config, "image_size", 224)
    size = size[-1] if isinstance(size, (list, tuple)) and size else size
    if type(size) is not int or size < 1:
        raise InputError(f"{name!r} says that its pictures have the size {size!r}: --size is the side that they have.")
    try:
        said = transformers.AutoImageProcessor.from_pretrained(name, **given)
        pictures = Pictures(size, tuple(said.image_mean), tuple(said.image_std))
    except (OSError, ValueError, AttributeError) as error:
        if _OF_CODE in str(error):  # the preprocessing of pictures is code
            raise InputError(_with_code(name)) from error
        pictures = Pictures(size)
    return Loaded(spec, model, known_labels(model), *picture_reading(model, pictures, size))


# Part of transformers' message about a model that comes with code.
_OF_CODE = "trust_remote_code=True"


def _with_code(name: str) -> str:
    return (
        f"{name!r} comes with code of its own, which nothing here has run. Read it; if you trust it, --trust-remote-code "
        "runs it."
    )


@contextmanager
def _loading(what: str, name: str) -> Iterator[None]:
    """Turns any error into a message of one line: a model's files may hold anything, and so raise anything.

    Raises:
        InputError: the model cannot be loaded.
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
    """The tokenizer that is saved with a model."""
    hint = "save it there: tokenizer.save_pretrained(folder)."
    with _loading(f"{name!r} holds no tokenizer that can be loaded; {hint} It was said", name):
        found = transformers.AutoTokenizer.from_pretrained(name, **given)
    # Without its files, some tokenizers are made without a vocabulary: every word would be unknown.
    if len(found) <= len(set(found.all_special_ids)):
        raise InputError(f"{name!r} holds no tokenizer, only a model; {hint}")
    return padded(found)

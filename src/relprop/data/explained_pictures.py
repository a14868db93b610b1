"""The pictures that a run explained, read again from its source by their keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image

from relprop.data.sample_sources import Source, source_of
from relprop.data.store import Store
from relprop.errors import InputError, RelpropError
from relprop.loading import models
from relprop.loading.network import Loaded, Pictures, picture_reading
from relprop.rendering.image import picture_of
from relprop.rendering.visible import quoted


def pictures_of(store: Store, source: Any, model: Any = None, transform: Any = None) -> Callable[[str], Image.Image]:
    """A function from the key of a sample to its picture, as the network saw it.

    Args:
        store: the run.
        source: its source.
        model: its network by name, which says how pictures in files are read; None takes the name that the run has.
        transform: as it was given to the run.

    Raises:
        InputError: the source is another one, or its samples are not pictures.
    """
    named = model if model is not None else store.about["fingerprint"]["model"]
    files = store.about["fingerprint"]["source"] == "files" and transform is None
    loaded: Loaded | None = None
    if files:
        try:
            loaded = models.load(named)
        except (RelpropError, ModuleNotFoundError) as error:
            raise InputError(
                f"the run's network {named!r} is not known by name, and says how pictures are read: pass model=, such as "
                "'module.path:factory'."
            ) from error
    reading = picture_reading(torch.nn.Identity(), Pictures())
    found = source_of(source, loaded or Loaded(str(named), torch.nn.Identity(), None, *reading), None, transform)
    if not isinstance(found, Source):
        raise InputError("a source without a length gives no picture by its key: pass it as a list or a data set.")
    places = {key: n for n, key in enumerate(found.keys)}
    low, high = loaded.bounds() if loaded is not None else (None, None)

    def of(key: str) -> Image.Image:
        if key not in places:
            raise InputError(f"the source has no {quoted(key)}: it is not the one of this run.")
        x = found.read(places[key]).inputs
        if x.ndim not in (2, 3):
            raise InputError(f"{quoted(key)} is not a picture: its shape is {tuple(x.shape)}.")
        if low is not None and high is not None:
            x = ((x - low[0]) / (high[0] - low[0])).clamp(0, 1)
        return picture_of(x)[0]

    return of

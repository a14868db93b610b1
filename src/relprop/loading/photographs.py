"""The photographs of the demonstration. scikit-image ships them, and all are in the public domain (CC0)."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from relprop.zoo.images import load_image


@dataclass(frozen=True)
class Photograph:
    """A photograph, and a class to set against the network's answer.

    Attributes:
        title: what it shows.
        file: its name in scikit-image's data folder.
        credit: who took it.
        against: the other class.
    """

    title: str
    file: str
    credit: str
    against: str

    def open(self) -> Image.Image:
        """Reads it from the installed package, without importing scikit-image."""
        spec = importlib.util.find_spec("skimage")
        if spec is None or not spec.submodule_search_locations:
            raise ModuleNotFoundError(
                "the demonstration's photographs come with scikit-image: pip install 'relprop[demo]'",
                name="skimage",
            )
        return load_image(Path(spec.submodule_search_locations[0]) / "data" / self.file)


# EfficientNet-Lite0 classifies each of them correctly.
PHOTOGRAPHS = (
    Photograph("A cat", "chelsea.png", "Photograph: Stéfan van der Walt, CC0.", "Egyptian cat"),
    Photograph("A cup of coffee", "coffee.png", "Photograph: Rachel Michetti, CC0.", "cup"),
    Photograph("A man with a camera", "camera.png", "Photograph: Lav Varshney, CC0.", "reflex camera"),
)

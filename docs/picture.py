"""Draws images/demo.png, the picture at the top of the README: `make picture`."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

import relprop
from relprop.composites import epsilon_plus_flat, gamma_box, gamma_flat
from relprop.loading.photographs import PHOTOGRAPHS
from relprop.rendering import Heatmap, Panel, column, strip
from relprop.rendering.drawing import framed
from relprop.zoo import efficientnet_lite0
from relprop.zoo.images import preprocess, square

WHERE = Path(__file__).parent / "images" / "demo.png"
COMPOSITES = {
    "gamma_box, gamma 0.15": gamma_box(),
    "gamma_box, gamma 0.25": gamma_box(0.25),
    "gamma_box, gamma 1": gamma_box(1.0),
    "gamma_flat": gamma_flat(),
    "epsilon_plus_flat": epsilon_plus_flat(),
}


def draw() -> Image.Image:
    """Two photographs, a row each: what the network saw, and its top class explained by each composite."""
    model = efficientnet_lite0()
    rows = []
    for photograph in PHOTOGRAPHS[:2]:
        picture = photograph.open()
        panels = [Panel(square(picture), photograph.title, smooth=True)]
        for name, composite in COMPOSITES.items():
            R = relprop.attribute(model, preprocess(picture), composite=composite)
            heatmap = Heatmap.of(R.values)
            panels[0] = Panel(
                panels[0].image,
                f"{photograph.title}\n{model.labels[R.target[0]]}, score {R.score.item():.2f}",
                smooth=True,
            )
            numbers = (
                f"sum {R.values.sum().item():.3g}, residual {R.residual.item():.2f}"
            )
            panels.append(Panel(heatmap, f"{name}\n{numbers}"))
        rows.append(strip(panels))
    return framed(column(rows)).to_image(2)


if __name__ == "__main__":
    draw().save(WHERE, optimize=True)
    print(WHERE)

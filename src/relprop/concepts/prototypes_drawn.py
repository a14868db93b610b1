"""Pictures of prototypes: the samples nearest to each, and the outliers of a class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from relprop.errors import InputError
from relprop.rendering.drawing import Drawing, column, framed, row, titled
from relprop.rendering.image import picture_of
from relprop.rendering.panels import Panel, panel

SIDE = 96


def drawing(found: Any, label: int, outliers: int) -> Drawing:
    """The prototypes of a class, one below the other, and its outliers."""
    if found.index.dataset is None:
        raise InputError("pictures need the model and the data: relprop.load_index(folder, model, dataset).")
    rows = []
    for one in found.of_class(label):
        units = ", ".join(f"{unit} ({share:+.0%})" for unit, share in one.units)
        samples = _pictures(found, one.samples, [f"sample {n}" for n in one.samples])
        rows.append(
            titled(
                samples, f"prototype {one.number}: {one.weight:.0%} of the samples", size=13, lines=[f"units {units}"]
            )
        )
    for strange in found.outliers(outliers, label):
        units = ", ".join(f"{d.unit} ({d.share:+.0%}, usually {d.usual:+.0%})" for d in strange.units)
        shown = _pictures(found, [strange.sample], [f"sample {strange.sample}"])
        said = f"outlier, nearest to prototype {strange.prototype}; log-likelihood {strange.log_likelihood:.0f}"
        rows.append(titled(shown, said, size=13, lines=[f"units {units}"]))
    of = f"shares of {found.of} in {found.layer}"
    return framed(titled(column(rows), f"class {label}: prototypes", lines=[of]))


def _pictures(found: Any, samples: Sequence[int], said: Sequence[str]) -> Drawing:
    panels = []
    for n, name in zip(samples, said, strict=True):
        item = found.index.dataset[n]
        x = item[0] if isinstance(item, (tuple, list)) else item
        if x.ndim != 3:
            raise InputError(f"samples of shape {tuple(x.shape)} are no pictures.")
        panels.append(panel(Panel(picture_of(x)[0], name, smooth=x.shape[-1] > 100), height=SIDE))
    drawn = row(panels)
    return replace(drawn, width=max(drawn.width, 4 * SIDE))  # room for the words above

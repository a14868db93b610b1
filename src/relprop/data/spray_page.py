"""The page about the strategies of a run: a table, and the clusters of each class with their maps. It has no scripts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

import numpy as np
from PIL import Image

from relprop.data.chunks import decoded
from relprop.data.explained_pictures import pictures_of
from relprop.data.store import Store
from relprop.data.strategies import COLUMNS, Strategies, table, verdict
from relprop.data.text_strategies import text_clusters_html
from relprop.errors import InputError
from relprop.rendering import html
from relprop.rendering.figures import figure
from relprop.rendering.image import Heatmap, overlay
from relprop.rendering.panels import Panel

_MEAN = 500
"""Of how many samples of a cluster the map is averaged at most."""
_COLOURS = ("#1f77b4", "#d95f02", "#2ca02c", "#7570b3", "#e7298a", "#8c564b", "#66a61e", "#555555")
_SIDE = 320
_ABOUT = (
    "SpRAy joins each explanation of a class with its most similar ones, and looks where that graph falls apart. A class "
    "whose split into two is much clearer than those of the other classes may have samples with something that the network "
    "uses and should not: look at its smallest cluster first."
)


def page(store: Store, classes: Sequence[Strategies], most: int, source: object, transform: object) -> str:
    """The page as HTML.

    Raises:
        InputError: the run keeps no maps over height and width.
    """
    texts = any(spec.name == "tokens.id" for spec in store.specs)
    if not texts:
        check_maps(store)
    elif source is not None:
        raise InputError("source= is for pictures; a run over texts holds its tokens.")
    picture = pictures_of(store, source, None, transform) if source is not None else None
    body = [f"<p>{html.text(_ABOUT)}</p>", f"<p>{html.text(verdict(classes))}</p>", html.key(), classes_html(classes)]
    body += [text_clusters_html(store, one) if texts else clusters_html(store, one, picture) for one in classes[:most]]
    if len(classes) > most:
        body.append(f"<p>{len(classes) - most} further classes are in the table alone.</p>")
    return html.page("Strategies", "\n".join(body))


def check_maps(store: Store) -> None:
    """Refuses a run without maps over height and width.

    Raises:
        InputError: the run keeps none.
    """
    spec = next((spec for spec in store.specs if spec.name == "maps"), None)
    if spec is None or spec.axes[-2:] != ("height", "width"):
        raise InputError(
            "the page draws maps over height and width, and the run keeps none: see keep= of explain_dataset."
        )


def classes_html(classes: Sequence[Strategies]) -> str:
    """The table of all classes."""
    columns = COLUMNS[:-1]
    head = "".join(f'<th scope="col">{html.text(name)}</th>' for name in columns)
    rows = "".join("<tr>" + "".join(f"<td>{html.text(c)}</td>" for c in row[:-1]) + "</tr>" for row in table(classes))
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def clusters_html(
    store: Store,
    one: Strategies,
    picture: Callable[[str], Image.Image] | None,
    more: Callable[[int], str] = lambda n: "",
) -> str:
    """The clusters of a class: the average map of each, and its most central samples.

    Args:
        store: the run.
        one: the class.
        picture: the picture of a key, on which its map is drawn; None draws the map alone.
        more: what follows each cluster, as HTML.
    """
    parts = [f"<h2>Class {html.text(one.target)}</h2>", _points(one)]
    for cluster, size in enumerate(one.sizes):
        inside = np.flatnonzero(one.clusters == cluster)
        parts.append(f"<h3>Cluster {cluster + 1}: {size} of {len(one.keys)} samples</h3>")
        some = inside[np.linspace(0, len(inside) - 1, min(len(inside), _MEAN)).astype(int)]
        total = sum(_maps(store, one, some[n : n + 64]).sum(0) for n in range(0, len(some), 64))
        said = "average map" if len(some) == len(inside) else f"average map of {len(some)} samples"
        drawn = [figure(Panel(Heatmap.of(total / len(some)), said))]
        at = {one.keys[int(n)]: int(n) for n in inside}
        for key in one.central[cluster]:
            heatmap = Heatmap.of(_maps(store, one, np.array([at[key]]))[0])
            shown = heatmap if picture is None else over_picture(heatmap, picture(key))
            drawn.append(figure(Panel(shown, key, heatmap, bar=False), noted=False))
        parts.append(f'<div class="figures c6">{"".join(drawn)}</div>{more(cluster)}')
    if noise := int((one.clusters < 0).sum()):
        parts.append(f"<p>{noise} samples are in no cluster.</p>")
    return f"<section>{''.join(parts)}</section>"


def over_picture(heatmap: Heatmap, picture: Image.Image) -> Image.Image:
    """A map on its picture, in the larger of their sizes."""
    if picture.height <= heatmap.values.shape[0]:
        return overlay(heatmap, picture)
    rows, columns = (
        np.arange(n) * of // n for n, of in zip((picture.height, picture.width), heatmap.values.shape, strict=True)
    )
    return overlay(Heatmap(heatmap.values[rows][:, columns], heatmap.scale, heatmap.palette), picture)


def _maps(store: Store, one: Strategies, chosen: np.ndarray) -> np.ndarray:
    values = decoded(store, "maps", one.rows[chosen]).astype(np.float64)
    values = values[:, one.which] if "targets" in store.about else values
    return np.asarray(values.sum(1) if values.ndim == 4 else values)


def _points(one: Strategies) -> str:
    """The samples in a plane, coloured by cluster."""
    where = one.view if one.view is not None else one.embedding[:, :2]
    what = "2-D view" if one.view is not None else "second and third eigenvector"
    shown = np.flatnonzero(np.isfinite(where).all(1))
    shown = shown[np.linspace(0, len(shown) - 1, min(len(shown), 1000)).astype(int)]
    low, high = where[shown].min(0), where[shown].max(0)
    xy = 8 + (where[shown] - low) / np.where(high > low, high - low, 1) * (_SIDE - 16)
    dots = []
    for (x, y), n in zip(xy, shown, strict=True):
        cluster = int(one.clusters[n])
        colour = _COLOURS[cluster % len(_COLOURS)] if cluster >= 0 else "#bbbbbb"
        name = escape(
            f"{one.keys[int(n)]}: cluster {cluster + 1}" if cluster >= 0 else f"{one.keys[int(n)]}: no cluster"
        )
        dots.append(f'<circle cx="{x:.1f}" cy="{_SIDE - y:.1f}" r="3" fill="{colour}"><title>{name}</title></circle>')
    frame = f'<rect x="0.5" y="0.5" width="{_SIDE - 1}" height="{_SIDE - 1}" fill="none" stroke="#dcdcdc"/>'
    names = [f"cluster {n + 1}" for n in range(len(one.sizes))]
    for n, name in enumerate(names):
        x, y = 8 + 100 * (n % 3), _SIDE + 14 + 18 * (n // 3)
        dots.append(f'<circle cx="{x}" cy="{y}" r="5" fill="{_COLOURS[n % len(_COLOURS)]}"/>')
        dots.append(f'<text x="{x + 10}" y="{y + 4}" font-size="12" font-family="sans-serif">{name}</text>')
    high = _SIDE + 8 + 18 * -(-len(names) // 3)
    size = f'width="{_SIDE}" height="{high}" viewBox="0 0 {_SIDE} {high}"'
    drawn = (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{what}" {size}>{frame}{"".join(dots)}</svg>'
    )
    note = f"<figcaption><p class=note>{what}</p></figcaption>"
    return f'<div class="figures c3"><figure>{drawn}{note}</figure></div>'

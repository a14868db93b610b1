"""Tables: which measurements counted."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import relprop
from gallery import data, networks
from gallery.catalogue import entry, headed
from relprop import Contrast
from relprop.rendering import Drawing, bar_ends, bars, column, waterfall


def trained_table(table: tuple[Tensor, Tensor, list[str], list[str]]) -> tuple[nn.Module, Tensor, Tensor, Tensor, str]:
    """A network for tables; rows it has not seen, as measured and as scaled; their classes; how often it is right."""
    torch.manual_seed(0)
    x, y, _, classes = table
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x, y = x[order], y[order]
    train = len(x) * 3 // 4
    scaled = (x - x[:train].mean(0)) / x[:train].std(0)
    model = networks.fit(networks.for_tables(x.shape[1], len(classes)), scaled[:train], y[:train], 40)
    right = networks.accuracy(model, scaled[train:], y[train:])
    return model, x[train:], scaled[train:], y[train:], f"test accuracy {right:.1%}, {len(classes)} classes"


@entry("Tables", "A biopsy, up to the score")
def biopsy() -> Drawing:
    """Breast cancer: what speaks for malignant rather than benign, in the measured units. Grey is what constants of
    the network kept; the bars end at the score.
    """
    table = data.breast_cancer()
    model, raw, scaled, y, said = trained_table(table)
    n = int((y == 0).nonzero()[2])
    R = relprop.attribute(model, scaled[n : n + 1], Contrast(0, 1), composite="epsilon")
    shown = waterfall(R.values[0], float(R.score), float(R.residual), table[2], raw[n], most=10)
    return headed(shown, R, "malignant rather than benign", said)


@entry("Tables", "Three wines")
def wines() -> Drawing:
    """One wine of each grower, explained for its own class: the five largest measurements, all on one scale."""
    table = data.wine()
    model, raw, scaled, y, said = trained_table(table)
    parts = []
    chosen = [int((y == label).nonzero()[0]) for label in range(len(table[3]))]
    found = relprop.attribute(model, scaled[chosen], list(range(len(chosen))), composite="epsilon")
    ends = [bar_ends(values, most=5) for values in found.values]
    shared = min(low for low, _ in ends), max(high for _, high in ends)
    for n, name, R in zip(chosen, table[3], found, strict=True):
        shown = bars(R.values[0], table[2], raw[n], most=5, ends=shared)
        parts.append(headed(shown, R, f"the {name} grower", *([said] if not parts else [])))
    return column(parts, 10)

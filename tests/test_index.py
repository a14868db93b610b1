"""Indexes of what hidden units stand for, against a definition that keeps everything."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop.concepts.reference_pages import box, own_of
from relprop.concepts.tops import Tops, packed, place
from relprop.errors import FormatError, InputError
from test_conditions import Attending, Branch, convolutional, vectors

Data = list[tuple[Tensor, int]]
LAYERS = ["0", "3", "8"]


def data(count: int = 23) -> Data:
    torch.manual_seed(9)
    return [(torch.randn(2, 8, 8, dtype=torch.float64), n % 3) for n in range(count)]


def by_hand(net: nn.Module, samples: Data, layer: str) -> tuple[Tensor, Tensor]:
    """Relevance and activation of every sample, (N, U, P)."""
    relevance, acts = [], []
    for x, label in samples:
        R = relprop.attribute(net, x[None], label, layers=[layer])
        kept: dict[str, Tensor] = {}
        named = dict(net.named_modules())
        follows = {"0": "1", "3": "4"}.get(layer, layer)  # a merged convolution's units are those after its BatchNorm
        hook = named[follows].register_forward_hook(lambda m, a, out, kept=kept: kept.update(v=out.detach().clone()))
        net(x[None])
        hook.remove()
        relevance.append(R.layers[layer][0].reshape(kept["v"].shape[1], -1))
        acts.append(kept["v"][0].reshape(kept["v"].shape[1], -1))
    return torch.stack(relevance), torch.stack(acts)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("normalise", [False, True])
def test_references_and_classes_by_hand(layer: str, normalise: bool) -> None:
    net, samples = convolutional(), data()
    index = relprop.index(net, samples, layers=LAYERS, keep=5, batch_size=7, normalise=normalise)
    relevance, acts = by_hand(net, samples, layer)
    sums = relevance.sum(2)
    share = sums / sums.abs().sum(1, keepdim=True)
    for unit in range(sums.shape[1]):
        ranked = (share if normalise else sums)[:, unit]
        best = ranked.argsort(descending=True, stable=True)[:5]
        found = index[layer, unit].references()
        assert [one.sample for one in found] == best.tolist()
        assert [one.value for one in found] == pytest.approx(ranked[best].tolist(), rel=1e-6)
        most, at = acts[:, unit].max(1)
        best = most.argsort(descending=True, stable=True)[:5]
        found = index[layer, unit].references("activation")
        assert [one.sample for one in found] == best.tolist()
        side = round(acts.shape[2] ** 0.5)
        places = [(int(p) // side, int(p) % side) if side > 1 else () for p in at[best]]
        assert [one.position for one in found] == places
    of = index.layers[layer]
    labels = torch.tensor([label for _, label in samples])
    for label in range(3):
        torch.testing.assert_close(of.per_class[label], share[labels == label].mean(0), rtol=1e-9, atol=1e-12)
    assert index.of_class(1, layer, 2)[0][0] == int(of.per_class[1].argmax())
    assert index[layer, 0].classes()


def equal(a: relprop.Index, b: relprop.Index) -> None:
    assert a.layers.keys() == b.layers.keys() and a.about == b.about
    for path, one in a.layers.items():
        other = b.layers[path]
        for by in ("relevance", "activation"):
            for name in ("values", "samples", "positions"):
                x, y = getattr(getattr(one, by), name), getattr(getattr(other, by), name)
                torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-9)
        assert torch.equal(one.seen, other.seen)
        torch.testing.assert_close(one.class_sum, other.class_sum)
        assert torch.equal(one.class_count, other.class_count)
        if one.vectors is not None:
            assert other.vectors is not None
            torch.testing.assert_close(one.vectors, other.vectors)


def test_batches_and_parts_make_no_difference(tmp_path: Path) -> None:
    net, samples = convolutional(), data()
    make: Any = partial(relprop.index, net, samples, layers=["3"], keep=4, vectors=True)
    whole = make()
    equal(whole, make(batch_size=1))
    parts = [make(rows=rows) for rows in ((0, 8), (8, 9), (9, 23))]
    equal(whole, parts[0] | parts[1] | parts[2])
    equal(whole, parts[2] | parts[0] | parts[1])
    assert whole.samples == 23 and (parts[0] | parts[2]).about["rows"] == [[0, 8], [9, 23]]
    whole.save(tmp_path / "index")
    again = relprop.load_index(tmp_path / "index", net, samples)
    equal(whole, again)
    assert again["3", 1].references() == whole["3", 1].references()
    assert whole.layers["3"].vectors is not None and whole.layers["3"].vectors.shape == (23, 4)


def test_work_goes_on_after_an_interruption(tmp_path: Path) -> None:
    net, samples = convolutional(), data()
    make: Any = partial(relprop.index, net, layers=["3"], keep=4, batch_size=4, every=1, vectors=True)
    seen: list[int] = []

    class Broken:
        def __init__(self, at: int) -> None:
            self.at = at

        def __len__(self) -> int:
            return len(samples)

        def __getitem__(self, n: int) -> Any:
            seen.append(n)
            if n == self.at and len(seen) > 12:
                raise KeyboardInterrupt
            return samples[n]

    with pytest.raises(KeyboardInterrupt):
        make(Broken(14), folder=tmp_path / "index")
    begun = relprop.load_index(tmp_path / "index")
    assert begun.about["rows"] == [[0, 12]]
    seen.clear()
    made = make(Broken(-1), folder=tmp_path / "index")
    assert sorted(set(seen) - {0, 7, 15, 22}) == [
        n for n in range(12, 23) if n not in (15, 22)
    ]  # others are the fingerprint
    equal(made, make(samples))
    equal(relprop.load_index(tmp_path / "index"), made)


def test_ties_go_by_the_number_of_the_sample() -> None:
    tops = Tops.empty(1, 3)
    tops = tops.add(torch.tensor([[1.0], [2.0]]), torch.tensor([0, 1]), torch.zeros(2, 1))
    tops = tops.add(torch.tensor([[2.0], [1.0], [2.0]]), torch.tensor([2, 3, 4]), torch.zeros(3, 1))
    assert tops.samples.tolist() == [[1, 2, 4]]
    late = Tops.empty(1, 3).add(torch.tensor([[2.0], [2.0]]), torch.tensor([1, 2]), torch.zeros(2, 1))
    early = Tops.empty(1, 3).add(torch.tensor([[2.0]]), torch.tensor([0]), torch.zeros(1, 1))
    assert late.merge(early).samples.tolist() == early.merge(late).samples.tolist() == [[0, 1, 2]]


def test_data_without_labels_and_of_several_sizes() -> None:
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).double()
    torch.manual_seed(0)
    samples = [torch.randn(2, 6 + n % 2, 6, dtype=torch.float64) for n in range(6)]
    index = relprop.index(net, samples, layers=["0"], keep=2)
    assert index.about["labels"] is False and index.samples == 6
    predicted = torch.tensor([int(net(x[None]).argmax()) for x in samples])
    of, counts = index.layers["0"], torch.bincount(predicted)
    assert torch.equal(of.seen, counts.nonzero()[:, 0]) and torch.equal(of.class_count, counts[counts > 0])
    wider = [torch.randn(2, 6, 6 + n, dtype=torch.float64) for n in range(4)]
    for one in relprop.index(net, wider, layers=["0"], keep=4)["0", 1].references("activation"):
        hidden = net[0](wider[one.sample][None])[0, 1]
        assert hidden[one.position] == hidden.max()


def test_packed_positions() -> None:
    for shape in ((), (7,), (2**31 - 1,), (5, 9), (2**15, 3), (3, 4, 5)):
        count = min(math.prod(shape), 200)
        flat = torch.arange(count) + math.prod(shape) - count
        for one, number in zip(packed(flat, shape).int().tolist(), flat.tolist(), strict=True):
            assert place(one, len(shape)) == tuple(int(i) for i in np.unravel_index(number, shape))
    with pytest.raises(ValueError, match="up to 32768 along each of 2 axes"):
        packed(torch.zeros(1, dtype=torch.int64), (2, 2**15 + 1))


def test_tokens_and_heads() -> None:
    net = Attending(False).double()
    torch.manual_seed(0)
    samples = [(torch.randint(9, (4,)), n % 3) for n in range(8)]
    index = relprop.index(net, samples, layers=["q", "heads"], keep=2)
    assert len(index.layers["q"].relevance.values) == 24 and len(index.layers["heads"].relevance.values) == 2
    assert len(index["q", 3].references("activation")[0].position) == 1
    other = relprop.index(net, samples, layers=["q"], keep=2, axes={"q": 0})
    assert len(other.layers["q"].relevance.values) == 4


def test_many_classes_take_no_room_without_samples() -> None:
    """The classes of a language model are its tokens: only those that were explained are kept."""
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 50_000))
    index = relprop.index(net, [(torch.rand(4), label) for label in (7, 49_999, 7, 3)], layers=["1"], keep=2)
    of = index.layers["1"]
    assert of.seen.tolist() == [3, 7, 49_999] and of.class_count.tolist() == [1, 2, 1] and of.class_sum.shape == (3, 6)
    assert {c for c, _ in index["1", int(of.shares[2].argmax())].classes()} <= {3, 7, 49_999}
    assert index.of_class(49_999, "1", 1)[0][0] == int(of.shares[2].argmax())
    assert torch.equal(of.per_class[7], of.shares[1]) and not of.per_class[8].any()
    with pytest.raises(InputError, match="no sample of class 8"):
        index.of_class(8, "1")


def test_memory_of_a_large_index() -> None:
    """1,280 units with 16 references take less than 1 MB."""
    tops = Tops.empty(1280, 16)
    assert (
        sum(t.numel() * t.element_size() for t in (tops.values, tops.samples, tops.positions)) == 1280 * 16 * 12 < 2**20
    )


def test_pictures(tmp_path: Path) -> None:
    net = convolutional()
    torch.manual_seed(0)
    samples = [(torch.rand(3, 8, 8, dtype=torch.float64)[:2], n % 3) for n in range(9)]
    samples.append((samples[0][0] + 1e-6, 0))
    index = relprop.index(net, samples, layers=["3"], keep=6)
    index["3", 1].pictures(most=4).to_image()
    R = relprop.attribute(net, samples[0][0][None], 1)
    page = R.concepts(index, most=2, references=2)
    total = relprop.attribute(net, samples[0][0][None], 1).values
    parts = relprop.attribute_each(net, samples[0][0][None], 1, through=[relprop.units("3")[u] for u in page.units])
    for n, part in enumerate(parts):
        torch.testing.assert_close(page.maps[n], part.values[0])
        share = float((part.values[0] * total[0]).sum() / (total[0] ** 2).sum())
        torch.testing.assert_close(page.own[n], part.values[0] - share * total[0])
    for name in ("page.svg", "page.png", "page.pdf"):
        page.save(tmp_path / name)
        assert (tmp_path / name).stat().st_size > 1000
    with pytest.raises(InputError, match="saved as"):
        page.save(tmp_path / "page.txt")
    with pytest.raises(InputError, match="concepts are drawn for one picture"):
        relprop.attribute(net, torch.stack([samples[0][0], samples[1][0]]), 1).concepts(index)
    with pytest.raises(InputError, match="need the model"):
        index.save(tmp_path / "index")
        R.concepts(relprop.load_index(tmp_path / "index"))


def test_the_box_holds_the_relevance() -> None:
    relevance = torch.zeros(40, 40)
    relevance[20:30, 5:15] = 1.0
    top, bottom, left, right = box(relevance)
    assert 18 <= top <= 21 and 29 <= bottom <= 31 and 4 <= left <= 6 and 14 <= right <= 16
    assert box(-relevance)[1] > 0 and box(torch.zeros(9, 9)) == box(torch.zeros(9, 9))


def test_errors(tmp_path: Path) -> None:
    net, samples = convolutional(), data(6)
    make: Any = partial(relprop.index, net, samples, layers=["3"])
    for given, said in (
        ({"keep": 0}, "keep must be a positive int"),
        ({"layers": ["nope"]}, "is not part of the model"),
        ({"rows": (3, 9)}, "rows must be two numbers within the 6 samples"),
        ({"axes": {"3": 7}}, "got axis 7"),
        ({"normalise": 1}, "normalise must be True or False"),
    ):
        with pytest.raises(InputError) as caught:
            make(**given)
        assert said in str(caught.value)
    for bad, said in (
        (iter(samples), "the data have no length"),
        ([], "the data are empty"),
        ([("a", 1)], "sample 0 of the data is of type str"),
        ([samples[0], (torch.full((2, 8, 8), float("nan")).double(), 1)], "sample 1 of the data is not finite"),
        ([(samples[0][0], 1.5)], "the label of sample 0 is 1.5"),
    ):
        with pytest.raises(InputError) as caught:
            relprop.index(net, bad, layers=["3"])
        assert said in str(caught.value)
    index = make()
    for key, said in (
        (("nope", 1), "the index has no layer"),
        (("3", 9), "there is no unit 9"),
        ("3", "units of an index are"),
    ):
        with pytest.raises(InputError, match=said):
            index[key]
    with pytest.raises(InputError, match="by must be"):
        index["3", 1].references("size")
    with pytest.raises(InputError, match="no sample of class 7"):
        index.of_class(7, "3")
    with pytest.raises(InputError, match="samples in common"):
        index | make(rows=(2, 4))
    with pytest.raises(InputError, match="differ in how they were made"):
        make(rows=(0, 2)) | make(rows=(2, 4), keep=3)
    other = convolutional()
    with torch.no_grad():
        other[0].weight += 1  # type: ignore[operator]
    with pytest.raises(InputError, match="other weights"):
        index.attach(other)
    with pytest.raises(InputError, match="other data"):
        index.attach(net, data(5))
    make(folder=tmp_path / "index")
    with pytest.raises(InputError, match="holds an index of other settings"):
        make(folder=tmp_path / "index", keep=3)
    with pytest.raises(InputError, match="holds an index of a model with other weights"):
        relprop.index(other, samples, layers=["3"], folder=tmp_path / "index")


@pytest.mark.parametrize("damage", ["missing", "cut", "manifest", "units", "shape"])
def test_damaged_folders(tmp_path: Path, damage: str) -> None:
    relprop.index(convolutional(), data(6), layers=["3"]).save(tmp_path / "index")
    tensors, manifest = tmp_path / "index" / "index.safetensors", tmp_path / "index" / "index.json"
    if damage == "missing":
        tensors.unlink()
    elif damage == "cut":
        tensors.write_bytes(tensors.read_bytes()[:-8])
    elif damage == "manifest":
        manifest.write_text("{")
    else:
        content = json.loads(manifest.read_text())
        content["layers"]["3"] = {"shape": [5, 4, 4], "axis": 0} if damage == "units" else {"shape": "x", "axis": 0}
        manifest.write_text(json.dumps(content))
    with pytest.raises(FormatError, match="not an index that can be read"):
        relprop.load_index(tmp_path / "index")


# ------------------------------------------------------------------------------------------------- texts and series


class Words(nn.Module):
    """A classifier of ids that returns a dict, as those of libraries do."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.table, self.rnn, self.head = nn.Embedding(12, 6), nn.GRU(6, 5, batch_first=True), nn.Linear(5, 2)

    def forward(self, ids: Tensor, scale: float = 1.0) -> dict[str, Tensor]:
        return {"logits": self.head(self.rnn(self.table(ids))[0].sum(1)) * scale}


def texts() -> Data:
    torch.manual_seed(6)
    return [(torch.randint(12, (8 + n % 3,)), n % 2) for n in range(9)]


LETTERS = list("abcdefghijkl")


@pytest.mark.parametrize("by", ["relevance", "activation"])
def test_snippets_of_texts(by: str, tmp_path: Path) -> None:
    net, samples = Words().double(), texts()
    samples.append(samples[0])  # a copy is not shown twice
    options: dict[str, Any] = {"select": "logits", "forward_kwargs": {"scale": 2.0}}
    index = relprop.index(
        net, samples, layers=["rnn"], keep=10, tokenizer=lambda ids: [LETTERS[i] for i in ids], **options
    )
    found = index["rnn", 3].snippets(by, around=2, most=20)
    assert len(found) == 9
    references = {one.sample: one for one in index["rnn", 3].references(by)}
    for one in found:
        ids, label = samples[one.sample]
        R = relprop.attribute(net, ids[None], label, layers=["rnn"], **options)
        (part,) = relprop.attribute_each(net, ids[None], label, through=[relprop.units("rnn")[:, 3]], **options)
        hidden = (R.layers["rnn"][0] if by == "relevance" else net.rnn(net.table(ids[None]))[0])[0, :, 3]
        at = int(hidden.argmax())
        assert one.position == at == references[one.sample].position[0] and one.label == label
        start, stop = max(0, at - 2), min(len(ids), at + 3)
        assert (one.start, one.stop, one.length) == (start, stop, len(ids)) and torch.equal(
            one.content, ids[start:stop]
        )
        torch.testing.assert_close(one.relevance, part.values[0, start:stop], rtol=1e-10, atol=1e-12)
        names = [LETTERS[i] for i in ids.tolist()]
        names[at] = f"[{names[at]}]"
        assert one.text == " ".join(names[start:stop]) and one.text in str(one)
    index.save(tmp_path / "index")
    again = relprop.load_index(tmp_path / "index", net, samples, **options)
    plain = again["rnn", 3].snippets(by, around=2)[0]
    assert f"[{int(samples[plain.sample][0][plain.position])}]" in plain.text
    index["rnn", 3].pictures(by).to_image()


def test_the_concepts_of_a_text(tmp_path: Path) -> None:
    net, samples = Words().double(), texts()
    options: dict[str, Any] = {"select": "logits"}
    index = relprop.index(net, samples, layers=["rnn"], keep=4, tokenizer=lambda i: [LETTERS[n] for n in i], **options)
    R = relprop.attribute(net, samples[0][0][None], 1, layers=["rnn"], **options)
    page = R.concepts(index, most=3, references=2)
    of_units = R.layers["rnn"][0][0].sum(0)
    assert page.units == of_units.abs().argsort(descending=True)[:3].tolist()
    for n, unit in enumerate(page.units):
        part = relprop.attribute(net, samples[0][0][None], 1, through=relprop.units("rnn")[:, unit], **options)
        torch.testing.assert_close(page.maps[n], part.values[0])
        one, layer = part.values[0], R.values[0]  # all relevance passes the layer
        torch.testing.assert_close(page.own[n], one - (one @ layer) / (layer @ layer) * layer)
    page.save(tmp_path / "page.svg")
    drawn = (tmp_path / "page.svg").read_text()
    assert "what is its own" in drawn and drawn.count("token ") == 6
    with pytest.raises(InputError, match="the tokenizer must give one str for each of"):
        index.attach(net, samples, tokenizer=lambda ids: ["a"], **options)["rnn", 0].snippets()
    with pytest.raises(InputError, match="tokenizer must have convert_ids_to_tokens"):
        relprop.index(net, samples, layers=["rnn"], tokenizer=3, **options)


class Waves(nn.Module):
    """Series (C, T) in convolutions whose positions are fewer than the steps."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.first, self.second, self.head = (
            nn.Conv1d(2, 3, 5, stride=2),
            nn.Conv1d(3, 4, 3, padding=1),
            nn.Linear(4, 2),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.second(self.first(x).relu()).relu().mean(2))
        return out


def test_stretches_of_series(tmp_path: Path) -> None:
    net = Waves().double()
    torch.manual_seed(8)
    samples = [(torch.randn(2, 41, dtype=torch.float64), n % 2) for n in range(6)]
    index = relprop.index(net, samples, layers=["first"], keep=3)
    for one in index["first", 1].snippets(most=3):
        x, label = samples[one.sample]
        part = relprop.attribute(net, x[None], label, through=relprop.units("first")[1]).values[0]
        summed = part.sum(0)
        assert one.position == int(summed.argmax()) and one.start <= one.position < one.stop and one.tokens is None
        torch.testing.assert_close(one.relevance, part[:, one.start : one.stop])
        assert torch.equal(one.content, x[:, one.start : one.stop]) and one.length == 41
        inside, whole = (float(t.clamp(min=0).sum()) for t in (summed[one.start : one.stop], summed))
        assert inside >= 0.8 * whole
        assert f"positions {one.start} to {one.stop - 1} of 41" in str(one)
    exact = index["first", 1].snippets(around=3, most=1)[0]
    assert exact.start == max(0, exact.position - 3) and exact.stop == min(41, exact.position + 4)
    index["first", 1].pictures().to_image()
    relprop.attribute(net, samples[0][0][None], 1).concepts(index, most=2, references=2).save(tmp_path / "page.png")
    padded = relprop.index(net, samples, layers=["second"], keep=2)  # has no more steps than the first
    assert padded["second", 0].snippets()


class Steps(nn.Module):
    """Series with time first, (T, C)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(9)
        self.rnn, self.hidden, self.head = nn.LSTM(3, 6, batch_first=True), nn.Linear(6, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.hidden(self.rnn(x)[0][:, -1]).relu())
        return out


@pytest.mark.parametrize("layer", ["rnn", "hidden"])
def test_time_is_the_axis_of_the_layers_positions(layer: str, tmp_path: Path) -> None:
    net = Steps().double()
    samples = [(torch.randn(7, 3, dtype=torch.float64), n % 2) for n in range(5)]
    index = relprop.index(net, samples, layers=[layer], keep=3)
    one = index[layer, 2].snippets(around=1)[0]
    assert torch.equal(one.content, samples[one.sample][0][one.start : one.stop].T) and one.length == 7
    R = relprop.attribute(net, samples[0][0][None], 1)
    R.concepts(index, most=2, references=1).save(tmp_path / "page.svg")
    sound = nn.Sequential(
        nn.Unflatten(1, (1, -1)), nn.Conv1d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2)
    ).double()
    made = relprop.index(sound, [(torch.randn(14, dtype=torch.float64), n % 2) for n in range(4)], layers=["1"], keep=2)
    assert made["1", 0].snippets(most=1)[0].content.shape[0] == 1


def test_what_is_its_own_beside_a_way_around_the_layer() -> None:
    """The layer's map is what passes the layer, not what goes around it; a map of the layer's form leaves nothing."""
    net, x = Branch().double(), vectors(1)[:, None, :, None].expand(1, 1, 4, 4).clone()
    net = nn.Sequential(nn.Flatten(1), nn.Linear(16, 4).double(), net)
    index = relprop.index(net, [(x[0], 1)], layers=["2.f"], keep=1)
    page = relprop.attribute(net, x, 1).concepts(index, most=2, references=1)
    layer = relprop.attribute(net, x, 1, through=relprop.units("2.f")).values[0]
    for one, own in zip(page.maps, page.own, strict=True):
        torch.testing.assert_close(own, one - (one * layer).sum() / (layer * layer).sum() * layer)
    assert float(own_of(3 * layer[None], layer).abs().max()) < 1e-12 * float(layer.abs().max())


def test_errors_of_snippets(tmp_path: Path) -> None:
    net, samples = Words().double(), texts()
    index = relprop.index(net, samples, layers=["rnn"], keep=2, select="logits")
    for around in (-1, 1.5, True):
        with pytest.raises(InputError, match="around must be the number of positions"):
            index["rnn", 0].snippets(around=around)  # type: ignore[arg-type]
    index.save(tmp_path / "index")
    with pytest.raises(InputError, match="snippets need the model and the data"):
        relprop.load_index(tmp_path / "index")["rnn", 0].snippets()
    pictures = relprop.index(convolutional(), data(4), layers=["3"], keep=2)
    with pytest.raises(InputError, match=r"snippets are of ids .* \(2, 8, 8\)"):
        pictures["3", 0].snippets()

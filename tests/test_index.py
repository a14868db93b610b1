"""Indexes of what hidden units stand for, against a definition that keeps everything."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop.concepts.reference_pages import box
from relprop.concepts.tops import Tops
from relprop.errors import FormatError, InputError
from test_conditions import Attending, convolutional

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
    assert torch.equal(index.layers["0"].class_count, torch.bincount(predicted))


def test_tokens_and_heads() -> None:
    net = Attending(False).double()
    torch.manual_seed(0)
    samples = [(torch.randint(9, (4,)), n % 3) for n in range(8)]
    index = relprop.index(net, samples, layers=["q", "heads"], keep=2)
    assert len(index.layers["q"].relevance.values) == 24 and len(index.layers["heads"].relevance.values) == 2
    assert len(index["q", 3].references("activation")[0].position) == 1
    other = relprop.index(net, samples, layers=["q"], keep=2, axes={"q": 0})
    assert len(other.layers["q"].relevance.values) == 4


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
        own = part.values[0] - page.own[n]
        share = float((own * total[0]).sum() / (total[0] ** 2).sum())
        torch.testing.assert_close(page.own[n], part.values[0] - share * total[0])
    for name in ("page.svg", "page.png", "page.pdf"):
        page.save(tmp_path / name)
        assert (tmp_path / name).stat().st_size > 1000
    with pytest.raises(InputError, match="saved as"):
        page.save(tmp_path / "page.txt")
    with pytest.raises(InputError, match="one picture at a time"):
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

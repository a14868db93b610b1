"""Targets with a form of their own: a class over positions, boxes, steps, nodes, and the number behind a probability.

Each is compared with the function of the output that defines it.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relprop
from helpers import total
from relprop import Contrast, Detection, Edge, Graph, Logit, Node, Over, Step
from relprop.errors import FormatError, InputError, RelpropWarning, TargetError

LABELS = list("abcde")


class Fixed(nn.Module):
    """A linear layer whose outputs take a given shape, so that the output may be any kind of answer."""

    def __init__(self, *shape: int, wrap: Any = lambda t: t) -> None:
        super().__init__()
        self.shape, self.wrap = shape, wrap
        self.layer = nn.Linear(6, int(torch.tensor(shape).prod()))

    def forward(self, x: Tensor) -> Any:
        return self.wrap(self.layer(x).reshape(len(x), *self.shape))


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def same(model: Any, x: Any, target: Any, defined: Any, **options: Any) -> relprop.Relevance:
    """Asserts that a target explains what a function of the output defines."""
    found = relprop.attribute(model, x, target, composite="epsilon", **options)
    wanted = relprop.attribute(model, x, defined, composite="epsilon", **options)
    torch.testing.assert_close(found.score, wanted.score)
    torch.testing.assert_close(found.values, wanted.values)
    return found


MASK = torch.zeros(4, 6)
MASK[1:3, 2:5] = 1
WIDE = torch.nn.functional.interpolate(MASK[None, None], scale_factor=2)[0, 0]


@pytest.mark.parametrize(
    ("target", "defined", "words"),
    [
        (Over(3), lambda o: o[:, 3].sum((1, 2)), "d (3) over all positions"),
        (Over("d", mask=MASK), lambda o: (o[:, 3] * MASK).sum((1, 2)), "d (3) over a mask of 6 positions"),
        (Over(3, mask=MASK.bool().numpy()), lambda o: (o[:, 3] * MASK).sum((1, 2)), "d (3) over a mask of 6 positions"),
        (Over(3, mask=WIDE), lambda o: (o[:, 3] * MASK).sum((1, 2)), "d (3) over a mask of 24 positions"),
        (Over(-2, box=(2, 1, 5, 3)), lambda o: o[:, 3, 1:3, 2:5].sum((1, 2)), "d (3) in the box 2, 1, 5, 3"),
        (Over(3, mean=True), lambda o: o[:, 3].mean((1, 2)), "the mean of d (3) over all positions"),
        (Over(3, mask=MASK, mean=True), lambda o: o[:, 3, 1:3, 2:5].mean((1, 2)), "the mean of d (3) over a mask of 6 positions"),
        (Over(), total, "all outputs"),
        (Over(1, predicted=True), lambda o: (o[:, 1] * (o.argmax(1) == 1)).sum((1, 2)), "b (1) where it is predicted"),
        (Over(3, axis=2), lambda o: o[:, :, 3].sum((1, 2)), "d (3) over all positions"),
    ],
)  # fmt: skip
def test_a_class_is_summed_over_positions(target: Any, defined: Any, words: str) -> None:
    model, x = Fixed(5, 4, 6).eval(), torch.randn(3, 6)
    assert same(model, x, target, defined, labels=LABELS).subject(1) == words
    if not isinstance(target.target, str):
        assert same(model, x, target, defined).subject(1) == words.replace("d (3)", "class 3").replace(
            "b (1)", "class 1"
        )


def test_label_needs_labels_and_pictures_may_be_alone() -> None:
    model = nn.Conv2d(3, 5, 3, padding=1).eval()
    pictures = torch.rand(2, 3, 8, 8)
    masks = (torch.rand(2, 8, 8) > 0.5).float()
    found = same(model, pictures, [Over(1, mask=m) for m in masks], lambda o: (o[:, 1] * masks).sum((1, 2)))
    parts = relprop.attribute(model, pictures, [Over(1, mask=m) for m in masks], composite="epsilon", batch_size=1)
    torch.testing.assert_close(parts.values, found.values)
    assert [parts.subject(n) for n in (0, 1)] == [found.subject(n) for n in (0, 1)]
    with pytest.raises(TargetError, match="is a label, but the model has none"):
        relprop.attribute(model, pictures, Over("dog"))
    with pytest.raises(TargetError, match=r"\[relprop\.Over\(3, mask=one\) for one in mask\]"):
        relprop.attribute(model, pictures, Over(1, mask=masks))


def test_the_axis_of_classes() -> None:
    model, x = Fixed(7, 5).eval(), torch.randn(2, 6)
    last = lambda o: o[:, :, 2].sum(1)  # noqa: E731
    same(model, x, Over(2, axis=-1), last)
    same(model, x, Over("c"), last, labels=LABELS)
    same(model, x, Over(2, mask=torch.ones(7)), last)
    same(model, x, Over(2, axis=-1, box=(1, 4)), lambda o: o[:, 1:4, 2].sum(1))
    same(model, x, Over(2, axis=1), lambda o: o[:, 2].sum(1))
    with pytest.raises(TargetError, match=r"write axis=1 where classes come before positions"):
        relprop.attribute(model, x, Over(2))
    with pytest.raises(TargetError, match="not an axis of classes"):
        relprop.attribute(model, x, Over(2, axis=0))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (lambda: Over(3.0), "takes a class"),
        (lambda: Over(3, mean=1), "mean must be True or False"),
        (lambda: Over(predicted=True), "name it"),
        (lambda: Over(3, box=(1, 2, 1, 4)), "is empty"),
        (lambda: Over(3, box=(1, 2, 3)), "box is"),
        (lambda: Over(3, mask="all"), "mask must be"),
        (lambda: Over(3, mask=torch.tensor([float("nan")])), "NaN"),
        (lambda: Step("last"), "a step is an int"),
        (lambda: Step(1, axis=0), "axis of steps"),
        (lambda: Node([]), "a node is an int"),
        (lambda: Edge(0.5), "an edge is an int"),
        (lambda: Detection("dog"), "number of a box, and then a class"),
        (lambda: Detection(0, layout="boxes"), "layout must be"),
        (lambda: Logit(Logit(3)), "takes one target"),
        (lambda: Logit([1, 2]), "For one per sample write a list"),
        (lambda: Over(3, masks=MASK), "there is no argument 'masks'"),
    ],
)
def test_bad_arguments_are_refused_at_the_door(target: Any, message: str) -> None:
    with pytest.raises(relprop.errors.RelpropError, match=message):
        target()


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (Over(9), "target 9 is out of range: the model has 5 classes"),
        (
            Over(3, mask=torch.ones(3, 3)),
            r"the mask has the shape \(3, 3\), and the positions of the output are \(4, 6\)",
        ),
        (Over(3, mask=torch.zeros(4, 6)), "no position counts"),
        (Over(3, box=(0, 0, 9, 2)), "reaches beyond the output"),
        (Step(3, 1), "relprop.Over sums"),
        (Node(0, 1), r"outputs \(nodes, C\)"),
        ([Over(1)], "1 targets for a batch of 2 samples"),
        ([Node(0, 1), Node(1, 1)], "attribute_each"),
    ],
)
def test_targets_that_the_output_lacks(target: Any, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        relprop.attribute(Fixed(5, 4, 6).eval(), torch.randn(2, 6), target)


def test_steps_of_sequences_and_horizons_of_forecasts() -> None:
    sequence, x = Fixed(7, 5).eval(), torch.randn(2, 6)
    found = same(sequence, x, Step(-1, 2), lambda o: o[:, -1, 2])
    assert found.subject(0) == "class 2 at step 6"
    assert relprop.attribute(sequence, x, Step(3, "b"), labels=LABELS).subject(1) == "b (1) at step 3"
    same(sequence, x, Step(4, 1, axis=2), lambda o: o[:, 1, 4])
    likeliest = relprop.attribute(sequence, x, Step(2))
    assert [one.target for one in likeliest.target] == likeliest.output[:, 2].argmax(1).tolist()
    torch.testing.assert_close(likeliest.score, likeliest.output[:, 2].amax(1))
    forecast = Fixed(12).eval()
    same(forecast, x, Step(3), lambda o: o[:, 3])
    found = same(forecast, x, Step(range(3, 6)), lambda o: o[:, 3:6].sum(1))
    assert found.subject(0) == "the output at steps 3 to 5"
    same(forecast, x, Over(), lambda o: o.sum(1))
    same(sequence, x, [Step(0, 1), Step(4, 2)], lambda o: torch.stack([o[0, 0, 1], o[1, 4, 2]]))
    with pytest.raises(TargetError, match="there is no step 12: there are 12, 0 to 11"):
        relprop.attribute(forecast, x, Step(12))
    with pytest.raises(TargetError, match="has no classes"):
        relprop.attribute(forecast, x, Step(1, 2))


def test_nodes_edges_and_graphs() -> None:
    neighbours, layer = torch.rand(5, 5), nn.Linear(4, 3)
    x = torch.randn(5, 4)

    def nodes(x: Tensor) -> Tensor:
        return neighbours @ layer(x)

    found = same(nodes, x, Node(3, 1), lambda o: o[3, 1])
    assert len(found) == 1 and found.subject(0) == "class 1 of node 3"
    assert relprop.attribute(nodes, x, Node(-1)).target == Node(4, int(nodes(x)[4].argmax()))
    same(nodes, x, Node([0, 2], 1), lambda o: o[[0, 2], 1].sum())
    same(nodes, x, Node(None, 1), lambda o: o[:, 1].sum())
    same(lambda x: nodes(x)[:, 0], x, Edge(2), lambda o: o[2])
    graph = same(lambda x: nodes(x).sum(0, keepdim=True), x, Graph(target=2), lambda o: o[0, 2])
    assert graph.subject(0) == "class 2 of graph 0"
    with pytest.raises(TargetError, match="there is no node 5"):
        relprop.attribute(nodes, x, Node(5, 1))
    with pytest.raises(TargetError, match="needs a class"):
        relprop.attribute(nodes, x, Node([0, 1]))


def test_boxes_in_tensors() -> None:
    x = torch.randn(2, 6)
    rows = Fixed(7, 9).eval()
    columns = Fixed(9, 7, wrap=lambda t: t).eval()
    same(rows, x, Detection(3, 1, layout="rows", skip=4), lambda o: o[:, 3, 5])
    same(rows, x, Detection(3, "b"), lambda o: o[:, 3, 5], labels=LABELS)
    same(columns, x, Detection(3, "b"), lambda o: o[:, 5, 3], labels=LABELS)
    same(rows, x, Detection(target=2, layout="rows", skip=4), lambda o: o[:, :, 6].amax(1))
    found = same(rows, x, Detection(layout="rows", skip=4), lambda o: o[:, :, 4:].flatten(1).amax(1))
    best = found.output[:, :, 4:].flatten(1).argmax(1)
    assert [(t.number, t.target) for t in found.target] == [divmod(int(b), 5) for b in best]
    sure = Fixed(7, 10).eval()
    found = relprop.attribute(sure, x, Detection(target=0, layout="rows", skip=5))
    chosen = (found.output[..., 4] * found.output[..., 5]).argmax(1)  # objectness decides which box is the likeliest
    torch.testing.assert_close(found.score, found.output[torch.arange(2), chosen, 5])
    none = Fixed(7, 6).eval()
    found = relprop.attribute(none, x, Detection(), labels=LABELS)
    torch.testing.assert_close(found.score, found.output[..., :5].flatten(1).amax(1))
    assert found.subject(0).startswith("box ")
    with pytest.raises(TargetError, match="say which axis holds the boxes"):
        relprop.attribute(rows, x, Detection(3, 1))
    with pytest.raises(TargetError, match="say how many come before the class scores"):
        relprop.attribute(rows, x, Detection(3, 1, layout="rows"))
    with pytest.raises(TargetError, match="there is no box 7: there are 7"):
        relprop.attribute(rows, x, Detection(7, 1, layout="rows", skip=4))


def test_boxes_in_dicts_and_levels() -> None:
    x = torch.randn(2, 6)
    logits = Fixed(7, 6, wrap=lambda t: {"pred_logits": t, "pred_boxes": t[:, :, :4]}).eval()
    same(logits, x, Detection(3, 1), lambda o: o["pred_logits"][:, 3, 1])
    labels = torch.tensor([1, 0, 1, 2])
    pictures = Fixed(4, wrap=lambda t: [{"boxes": t, "labels": labels, "scores": row} for row in t]).eval()
    same(pictures, x, Detection(2), lambda o: torch.stack([one["scores"][2] for one in o]))
    found = same(
        pictures, x, Detection(target=1), lambda o: torch.stack([one["scores"][labels == 1].max() for one in o])
    )
    assert all(
        int(labels[found.target[n].number if isinstance(found.target, list) else found.target.number]) == 1
        for n in (0, 1)
    )
    same(pictures, x, [Detection(0), Detection(3)], lambda o: torch.stack([o[0]["scores"][0], o[1]["scores"][3]]))
    alone = Fixed(4, wrap=lambda t: [{"boxes": t, "labels": labels, "scores": t[0]}]).eval()
    same(alone, x[:1], Detection(3, 2), lambda o: o["scores"][3])
    with pytest.raises(TargetError, match="box 0 is of class 1, not 2"):
        relprop.attribute(pictures, x, Detection(0, 2))
    with pytest.raises(TargetError, match="the model found no box of class 4"):
        relprop.attribute(pictures, x, Detection(target=4))
    empty = Fixed(4, wrap=lambda t: [{"boxes": t, "labels": labels[:0], "scores": row[:0]} for row in t]).eval()
    with pytest.raises(TargetError, match="the model found no box"):
        relprop.attribute(empty, x, Detection())
    levels = Fixed(18 * 5, wrap=lambda t: [t[:, :72].reshape(-1, 18, 2, 2), t[:, 72:].reshape(-1, 18, 1, 1)]).eval()
    # box 11 is that of anchor 2, row 1, column 1 of the first level with 2 anchors of 9 entries and 4 positions each
    target = Detection(7, 1, skip=4, anchors=2)
    same(levels, x, target, lambda o: o[0].reshape(-1, 2, 9, 2, 2)[:, 1, 5, 1, 1])
    same(levels, x, Detection(9, 1, skip=4, anchors=2), lambda o: o[1].reshape(-1, 2, 9)[:, 1, 5])
    with pytest.raises(TargetError, match="not a multiple of anchors=5"):
        relprop.attribute(levels, x, Detection(7, 1, skip=4, anchors=5))


def steep(last: nn.Module) -> nn.Sequential:
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3), last).eval()
    model[2].weight.data *= 60
    return model


@pytest.mark.parametrize("last", [nn.Softmax(1), nn.LogSoftmax(1), nn.Sigmoid()])
def test_the_number_behind_a_probability(last: nn.Module) -> None:
    model, x = steep(last), torch.randn(2, 6)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for target in (1, None, Contrast(0, 1), lambda o: o[:, 2]):
        found = relprop.attribute(model, x, Logit(target))
        wanted = relprop.attribute(model[:3], x, target)
        assert torch.equal(found.values, wanted.values) and torch.equal(found.score, wanted.score)
        assert "before the final softmax or sigmoid" in found.subject(0)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_saturated_probability_is_noticed_and_logits_are_not() -> None:
    model, x = steep(nn.Softmax(1)), torch.randn(2, 6)
    with pytest.warns(RelpropWarning, match=r"ends in a softmax.*relprop\.Logit"):
        found = relprop.attribute(model, x)
    assert any("relprop.Logit" in notice for notice in found.notices)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        unsure = nn.Sequential(nn.Linear(6, 3), nn.Softmax(1)).eval()
        assert not relprop.attribute(unsure, x).notices  # what a softmax keeps there is another matter
        assert not relprop.attribute(model[:3], x).notices
        assert not relprop.attribute(model, x, Logit()).notices


def test_logits_beside_probabilities_and_in_lists() -> None:
    model, x = steep(nn.Softmax(1)), torch.randn(2, 6)
    with pytest.warns(RelpropWarning):
        logit, probability = relprop.attribute_each(model, x, [Logit(1), None])
    assert torch.equal(logit.values, relprop.attribute(model[:3], x, 1).values)
    torch.testing.assert_close(probability.output.sum(1), torch.ones(2))
    some = relprop.attribute(model, x, [Logit(1), Logit(2)])
    assert some.target == [Logit(1), Logit(2)]
    torch.testing.assert_close(some.values, relprop.attribute(model[:3], x, [1, 2]).values)
    one = relprop.attribute(model, x, Contrast(Logit(1), Logit(2)))
    torch.testing.assert_close(one.values, relprop.attribute(model[:3], x, Contrast(1, 2)).values)
    with pytest.raises(TargetError, match="holds Logits alone or none"):
        relprop.attribute(model, x, Contrast(Logit(1), 2))
    with pytest.raises(TargetError, match="the output is not the result of"):
        relprop.attribute(model[:3], x, Logit(1))
    blocks = nn.Sequential(nn.Sequential(nn.Linear(6, 6), nn.ReLU()), nn.Softmax(1)).eval()
    with pytest.raises(InputError, match="leave checkpoint out"):
        relprop.attribute(blocks, x, Logit(1), checkpoint=["0"])


def test_the_softmax_of_attention_stays_and_views_of_the_last_one_count() -> None:
    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.Linear(6, 6), nn.Linear(6, 1)

        def logits(self, x: Tensor) -> Tensor:
            keys = self.layer(x)[:, None] * x[:, :, None]
            return self.head((torch.softmax(keys, -1) @ x[:, :, None])[..., 0])

        def forward(self, x: Tensor) -> Tensor:
            return torch.sigmoid(self.logits(x)).squeeze(1)

    model, x = Attends().eval(), torch.randn(2, 6)
    found = relprop.attribute(model, x, Logit())
    torch.testing.assert_close(found.score, model.logits(x)[:, 0])
    wanted = relprop.attribute(model.logits, x, composite=found.composite)
    torch.testing.assert_close(found.values, wanted.values)


SAVED = [
    (Over(3, mask=MASK, mean=True), (5, 4, 6)),
    (Over("d", box=(2, 1, 5, 3)), (5, 4, 6)),
    ([Over(3), Over(1)], (5, 4, 6)),
    (Contrast(Over(3), Over(1)), (5, 4, 6)),
    (Step([1, 2], "b"), (7, 5)),
    (Detection(3, "b"), (7, 9)),
]


@pytest.mark.parametrize(("target", "shape"), SAVED)
def test_targets_are_saved_and_come_back(target: Any, shape: tuple[int, ...], tmp_path: Path) -> None:
    found = relprop.attribute(Fixed(*shape).eval(), torch.randn(2, 6), target, labels=LABELS)
    found.save(tmp_path / "kept")
    back = relprop.load(tmp_path / "kept")
    assert [back.subject(n) for n in (0, 1)] == [found.subject(n) for n in (0, 1)]
    assert repr(back.target) == repr(found.target)
    again = relprop.attribute(Fixed(*shape).eval(), torch.randn(2, 6), back.target, labels=LABELS)
    assert again.subject(0) == found.subject(0)
    found.save(tmp_path / "told.json")
    assert "form" in json.dumps(json.loads((tmp_path / "told.json").read_text())["target"])


def test_a_damaged_target_is_refused(tmp_path: Path) -> None:
    relprop.attribute(Fixed(5, 4, 6).eval(), torch.randn(2, 6), Over(3)).save(tmp_path / "kept")
    manifest = tmp_path / "kept" / "manifest.json"
    for wrong in ({"form": ["Nothing", {"dict": []}]}, {"form": ["Over", {"dict": [["box", [1]]]}]}, {"form": 3}):
        content = json.loads(manifest.read_text())
        content["content"]["target"] = wrong
        manifest.write_text(json.dumps(content))
        with pytest.raises(FormatError, match="target"):
            relprop.load(tmp_path / "kept")


def test_a_compiled_function_takes_them() -> None:
    model, x = Fixed(5, 4, 6).eval(), torch.randn(2, 6)
    compiled = relprop.compile(model, composite="epsilon", backend="aot_eager")
    torch.testing.assert_close(
        compiled(x, Over(3, mask=MASK)).values,
        relprop.attribute(model, x, Over(3, mask=MASK), composite="epsilon").values,
    )
    steps = relprop.compile(Fixed(7, 5).eval(), composite="epsilon", backend="aot_eager")
    for target, message in (
        (Step(1), "needs a class"),
        (Detection(1, 1, layout="rows", skip=0), "not with a compiled function"),
    ):
        with pytest.raises(TargetError, match=message):
            steps(x, target)


def test_targets_are_printed_as_they_are_written() -> None:
    for target in (Step(3, 1), Step((1, 2), 2, axis=2), Node(3, 1), Graph(target=1), Detection(4, "dog"), Detection(target=2, skip=4), Logit(3), Logit()):  # fmt: skip
        assert eval(repr(target)) == target
    assert repr(Graph(target=1)) == "Graph(target=1)" and repr(Detection(4, 1)) == "Detection(4, 1)"
    assert repr(Logit(Over(3, mean=True))) == "Logit(Over(3, mean=True))"


@pytest.mark.parametrize(
    "target",
    [
        [0, 1, 2], torch.tensor([2, 0, 1]), None, Contrast([0, 1, 2], [1, 2, 0]), Contrast(None, 2), Contrast(2, None),
        [Logit(0), Logit(1), Logit(2)], Logit(), Contrast(Logit(), Logit(1)),
    ],
    ids=repr,
)  # fmt: skip
def test_targets_in_batches_are_what_they_are_at_once(target: Any) -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3), nn.Softmax(1)).eval()
    x = torch.randn(3, 6)
    whole = relprop.attribute(model, x, target)
    parts = relprop.attribute(model, x, target, batch_size=1)
    torch.testing.assert_close(parts.values, whole.values)
    assert [parts.subject(n) for n in range(3)] == [whole.subject(n) for n in range(3)]
    assert [parts[n].subject(0) for n in range(3)] == [whole.subject(n) for n in range(3)]


class Detector(nn.Module):
    """Like those of torchvision: a list of pictures in, a list of dicts out, boxes sorted by score above a threshold."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.head = nn.Conv2d(3, 4, 4, stride=4), nn.Linear(4, 3)

    def forward(self, pictures: list[Tensor] | Tensor) -> list[dict[str, Tensor]]:
        found = []
        for picture in pictures:
            rows = self.head(torch.relu(self.backbone(picture[None])).flatten(2)[0].T)
            scores, labels = rows.softmax(1)[:, 1:].max(1)
            order = scores.argsort(descending=True)[:5]
            boxes = torch.stack([order, order, order + 1, order + 1], 1).float()
            found.append({"boxes": boxes, "labels": labels[order] + 1, "scores": scores[order]})
        return found


def test_a_detector_that_takes_a_list_of_pictures() -> None:
    model, pictures = Detector().eval(), torch.rand(2, 3, 8, 12)
    batch = relprop.attribute(model, pictures, Detection(1), composite="epsilon")
    assert batch.score.shape == (2,)
    for n in (0, 1):
        alone = relprop.attribute(model, [pictures[n]], Detection(1), composite="epsilon")
        torch.testing.assert_close(alone.values[0], batch.values[n])
        assert alone.score.shape == (1,) and alone.subject(0).startswith("box 1: class ")
        label = int(model([pictures[n]])[0]["labels"][1])
        assert relprop.attribute(model, pictures[n : n + 1], Detection(1, label)).score == alone.score

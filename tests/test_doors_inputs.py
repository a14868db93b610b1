"""Wrong inputs and targets are one error of ours: it says what was given and what to write. What an error advises is done here."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop.errors import (
    InputError,
    TargetError,
)


class Recurrent(nn.Module):
    """An LSTM with classes for each step, or for the last."""

    def __init__(self, batch_first: bool, last: str = "") -> None:
        super().__init__()
        self.lstm, self.head, self.last = nn.LSTM(4, 6, batch_first=batch_first), nn.Linear(6, 3), last

    def forward(self, x: Tensor) -> Tensor:
        y = self.head(self.lstm(x)[0])
        return {"": y, "first axis": y[-1], "second axis": y[:, -1] if y.ndim > 2 else y}[self.last]


class Pooled(nn.Module):
    """As many classes as channels, and nothing that minds a missing axis."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).mean((-2, -1))


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)).eval()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 4)


@pytest.fixture
def dense() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 3, padding=1)).eval()


# ---------------------------------------------------------------------------------------------------------- inputs


def test_a_picture(dense: nn.Module) -> None:
    Image = pytest.importorskip("PIL.Image")
    inputs = Image.new("RGB", (8, 6), (255, 0, 51))
    with pytest.raises(InputError, match=r"of type Image; .* Make a batch of the picture") as caught:
        relprop.attribute(dense, inputs, 0)
    advice = re.search(r"picture: (relprop\..*?\))\. ", str(caught.value))
    assert advice is not None
    made = eval(advice[1].replace("224", "None"), {"relprop": relprop, "inputs": inputs})
    assert made.shape == (1, 3, 6, 8)
    relprop.attribute(dense, made, (0, 0, 0))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_array(dtype: str, model: nn.Module, x: Tensor) -> None:
    pytest.importorskip("numpy")
    inputs = x.numpy().astype(dtype)
    with pytest.raises(InputError, match="of type ndarray") as caught:
        relprop.attribute(model, inputs, 0)
    advice = re.search(r"(torch\.as_tensor\(.*) makes one", str(caught.value))
    assert advice is not None
    made = eval(advice[1], {"torch": torch, "inputs": inputs})
    assert torch.equal(relprop.attribute(model, made, 0).values, relprop.attribute(model, x, 0).values)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("cat.png", "relprop.read_image"),
        (Path("cat.png"), "opens files by itself"),
        ([0.1, 0.2, 0.3, 0.4], r"inputs\[0\] is of type float.*torch\.tensor\(\[\.\.\.\]\)"),
        (None, "of type NoneType"),
        ({1.0}, "of type set"),
    ],
)
def test_what_is_no_tensor(given: Any, said: str, model: nn.Module) -> None:
    for function in (relprop.attribute, relprop.survey, relprop.compile(model, backend="eager")):
        with pytest.raises(InputError, match=said):
            function(given) if function not in (relprop.attribute, relprop.survey) else function(model, given)


def test_a_list_of_samples(model: nn.Module, x: Tensor) -> None:
    inputs = [x[0], x[1]]
    with pytest.raises(InputError, match=r"pass torch\.stack\(inputs\)"):
        relprop.attribute(model, inputs, 0)
    assert torch.equal(relprop.attribute(model, torch.stack(inputs), 0).values, relprop.attribute(model, x, 0).values)


def test_what_the_model_itself_does_not_take(model: nn.Module, x: Tensor) -> None:
    said = r"the model itself does not take inputs of shape \(2, 3\)\. The model itself raised: RuntimeError: mat1"
    for call in (relprop.attribute, relprop.survey):
        with pytest.raises(InputError, match=said) as caught:
            call(model, x[:, :3])
        assert isinstance(caught.value.__cause__, RuntimeError)


def test_arguments_that_the_model_lacks(x: Tensor) -> None:
    pair = nn.Bilinear(4, 4, 3)
    with pytest.raises(InputError, match=r"forward_args=.* several inputs are a tuple or a dict"):
        relprop.attribute(pair, x, 0)
    relprop.attribute(pair, x, 0, forward_args=(x,))
    relprop.attribute(pair, (x, x), 0)


def test_further_arguments_that_would_be_taken_apart(x: Tensor) -> None:
    pair = nn.Bilinear(4, 4, 3)
    with pytest.raises(InputError, match=r"forward_args must be a tuple .* got Tensor.*forward_args=\(it,\)"):
        relprop.attribute(pair, x, 0, forward_args=x)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="forward_kwargs must be a dict"):
        relprop.attribute(pair, x, 0, forward_kwargs=[x])  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["strict", "positions", "ledger", "progress", "multiply_by_inputs"])
def test_flags(name: str, model: nn.Module, x: Tensor) -> None:
    with pytest.raises(InputError, match=f"{name} must be True or False; got 'no'"):
        relprop.attribute(model, x, 0, **{name: "no"})  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------------- the axis of samples

LONE: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], str]] = {
    "a picture, as many classes as channels": (Pooled, (3, 8, 8), "inputs[None]"),
    "features, as many classes": (lambda: nn.Linear(4, 4), (4,), "inputs[None]"),
    "features": (lambda: nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)), (4,), "inputs[None]"),
    "a sequence": (lambda: Recurrent(True), (5, 4), "inputs[None]"),
    "a sequence, time first": (lambda: Recurrent(False), (5, 4), "inputs[:, None]"),
}


@pytest.mark.parametrize("name", LONE)
def test_a_sample_without_its_axis(name: str) -> None:
    """Torch runs these, and takes what comes out for so many samples."""
    make, shape, fix = LONE[name]
    torch.manual_seed(0)
    model, inputs = make().eval(), torch.randn(shape)
    target = (lambda y: y[:, 1]) if len(shape) == 2 else None
    with pytest.raises((InputError, TargetError), match=re.escape(fix)) as caught:
        relprop.attribute(model, inputs, target)
    assert "met one sample without its axis" in str(caught.value)
    batch = eval(fix, {"inputs": inputs})
    R = relprop.attribute(model, batch, lambda y: y.flatten()[:1].sum())
    assert R.values.shape == batch.shape


def test_a_map_of_classes_for_a_sample_without_its_axis(dense: nn.Module) -> None:
    """The rules of a convolution need the axis, too."""
    picture = torch.rand(3, 8, 8)
    with pytest.raises((InputError, TargetError), match=r"inputs\[None\]"):
        relprop.attribute(dense, picture, (0, 1))
    relprop.attribute(dense, picture[None], (0, 0, 1))


def test_layers_that_are_called_without_an_axis_on_purpose(model: nn.Module, x: Tensor) -> None:
    """One sample at a time, or one number for all."""
    rows = lambda x: torch.stack([model(row) for row in x])  # noqa: E731
    torch.testing.assert_close(relprop.attribute(rows, x, 0).values, relprop.attribute(model, x, 0).values)
    alone = relprop.attribute(nn.Linear(4, 4).eval(), x[0], lambda y: y[1])
    assert alone.values.shape == (4,)


@pytest.mark.parametrize("shape", [(5, 2, 4), (2, 2, 4)])
@pytest.mark.parametrize("last", ["", "first axis", "second axis"])
def test_time_first(shape: tuple[int, ...], last: str) -> None:
    torch.manual_seed(0)
    model, inputs = Recurrent(False, last).eval(), torch.randn(shape)
    with pytest.raises((InputError, TargetError), match=r"reads the first axis of inputs, of shape .*, as time"):
        relprop.attribute(model, inputs, lambda y: y.reshape(len(y), -1)[:, 1])


def test_time_first_as_advised() -> None:
    torch.manual_seed(0)
    model, inputs = Recurrent(False, "first axis").double().eval(), torch.randn(5, 2, 4, dtype=torch.float64)
    R = relprop.attribute(lambda x: model(x.transpose(0, 1)), inputs.transpose(0, 1), 1)
    torch.testing.assert_close(R.score, model(inputs)[:, 1].detach())
    number = relprop.attribute(model, inputs, lambda y: y[0, 1])  # a single number needs no axis of samples
    torch.testing.assert_close(number.values.transpose(0, 1)[:1], R.values[:1])
    other = Recurrent(True, "second axis").double().eval()
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(relprop.attribute(other, inputs.transpose(0, 1), 1).values, R.values)


# --------------------------------------------------------------------------------------------------------- targets


def test_a_class_at_all_positions(dense: nn.Module) -> None:
    x = torch.rand(2, 3, 6, 6)
    for target in (3, None):
        with pytest.raises(TargetError, match="Summed over positions, a class is") as caught:
            relprop.attribute(dense, x, target)
        advice = re.search(r"target=(relprop\.Over\(.*\))\.$", str(caught.value))
        assert advice is not None
        R = relprop.attribute(dense, x, eval(advice[1]))
        torch.testing.assert_close(R.score, dense(x)[:, target or 0].sum((1, 2)).detach())


def test_a_class_of_all_steps() -> None:
    model, x = Recurrent(True).eval(), torch.randn(2, 5, 4)
    with pytest.raises(TargetError, match="Summed over positions") as caught:
        relprop.attribute(model, x, 1)
    last = re.findall(r"target=(relprop\.Over\(.*?\)) where", str(caught.value))[0]
    first = last.replace("axis=-1", re.findall(r"and (axis=1) where", str(caught.value))[0])
    y = model(x).detach()
    torch.testing.assert_close(relprop.attribute(model, x, eval(last)).score, y[..., 1].sum(1))
    torch.testing.assert_close(relprop.attribute(model, x, eval(first)).score, y[:, 1].sum(1))


MEANT: list[tuple[Any, str, Any]] = [
    (1.0, r"Write 1\.", 1),
    ((0, 1), r"For one class per sample write a list, \[0, 1\]", [0, 1]),
    (torch.eye(3)[:2].long(), r"target\.argmax\(1\)", torch.tensor([0, 1])),
    (torch.eye(3)[:2], r"target\.argmax\(1\)", torch.tensor([0, 1])),
    ([[1, 0, 0], [0, 1, 0]], r"Does it mark a class, .* Then write 0\.", [0, 1]),
    ({0, 1}, "write a list, in the order of the samples", [0, 1]),
    ({0: 1}, "write a list", [0, 1]),
    ([(0, 1), (0, 1)], "2 indices", [0, 1]),
    ([0, 1, 2], r"relprop\.attribute_each\(model, inputs, targets\)", None),
]


@pytest.mark.parametrize(("given", "said", "meant"), MEANT)
def test_what_a_target_was_meant_to_be(given: Any, said: str, meant: Any, model: nn.Module, x: Tensor) -> None:
    with pytest.raises(TargetError, match=said):
        relprop.attribute(model, x, given)
    if meant is not None:
        relprop.attribute(model, x, meant)


def test_a_callable_target_that_fails(model: nn.Module, x: Tensor) -> None:
    with pytest.raises(TargetError, match=r"the callable target raised IndexError.*a Tensor of shape \(2, 3\)"):
        relprop.attribute(model, x, lambda y: y[:, 9])


@pytest.mark.parametrize("given", [3, "cat", None, {1, 2}, relprop.Contrast(0, 1)])
def test_targets_that_are_no_list(given: Any, model: nn.Module, x: Tensor) -> None:
    with pytest.raises(
        TargetError, match=r"relprop\.attribute_each: targets must be a list of targets; got .* write \["
    ):
        relprop.attribute_each(model, x, given)


def test_targets_in_a_tensor(model: nn.Module, x: Tensor) -> None:
    targets = torch.tensor([0, 2])
    with pytest.raises(TargetError, match=r"targets\.tolist\(\)"):
        relprop.attribute_each(model, x, targets)  # type: ignore[arg-type]
    assert len(relprop.attribute_each(model, x, targets.tolist())) == 2


@pytest.mark.parametrize("labels", ["abc", {0: "a", 1: "b", 2: "c"}, 3, [1, 2, 3]])
def test_labels_that_are_no_list_of_names(labels: Any, model: nn.Module, x: Tensor) -> None:
    with pytest.raises(TargetError, match="labels must be a list of the classes' names"):
        relprop.attribute(model, x, 0, labels=labels)
    names = {0: "a", 1: "b", 2: "c"}
    relprop.attribute(model, x, "b", labels=list(names.values()))


def test_a_selection_that_fails(x: Tensor) -> None:
    both = lambda x: {"boxes": x, "scores": x}  # noqa: E731
    with pytest.raises(TargetError, match="a dict with 'boxes', 'scores': KeyError: 'logits'"):
        relprop.attribute(both, x, 0, select="logits")
    relprop.attribute(both, x, 0, select="scores")


def test_inputs_by_name_are_watched_as_well() -> None:
    class Named(Pooled):
        def forward(self, picture: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(picture)

    with pytest.raises(InputError, match="met one sample without its axis"):
        relprop.attribute(Named().eval(), {"picture": torch.rand(3, 8, 8)})


def labels_as(kind: str) -> Any:
    numpy, pandas = pytest.importorskip("numpy"), pytest.importorskip("pandas")
    names = ["dog", "cat"]
    made: dict[str, Callable[[], Any]] = {
        "array": lambda: numpy.array(names),
        "array of objects": lambda: numpy.array(names, dtype=object),
        "column": lambda: pandas.Series(names, index=[5, 3]),
        "categories": lambda: pandas.Series(names, dtype="category"),
        "numbers that may be missing": lambda: pandas.Series([1, 0], dtype="Int64"),
    }
    return made[kind]()


@pytest.mark.parametrize("kind", ["array", "array of objects", "column", "categories", "numbers that may be missing"])
def test_labels_in_a_column_are_a_target_per_sample(kind: str) -> None:
    """As they stand in the table from which the samples come."""
    net, x = nn.Linear(4, 3).eval(), torch.randn(2, 4)
    right = relprop.attribute(net, x, [1, 0])
    for size in (None, 1):
        R = relprop.attribute(net, x, labels_as(kind), labels=["cat", "dog", "bird"], batch_size=size)
        torch.testing.assert_close(R.values, right.values)


def test_a_column_as_the_inputs_is_told_the_way() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1.0, 2.0], "b": [3, 4], "c": [True, False]})
    for given, row in ((frame["a"], frame["a"].to_frame()), (frame.iloc[0], frame.iloc[[0]])):
        with pytest.raises(InputError, match=r"to_frame\(\).*df\.iloc\[\[0\]\]"):
            relprop.attribute(nn.Linear(3, 2), given, 0)
        assert relprop.attribute(nn.Linear(row.shape[1], 2), row, 0).values.shape == row.shape

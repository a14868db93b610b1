"""Compiled models are explained as the Python they were made of; our own call compiles to one graph."""

from __future__ import annotations

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import torch
import torch._dynamo.testing
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

import networks
import relprop
import sequences
from relprop.errors import (
    CompositeError,
    InputError,
    NonFiniteError,
    RelpropError,
    TargetError,
    UnsupportedOperationError,
)


def plain() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*(sequences.Decoder() for _ in range(2))).eval()


def in_place() -> nn.Module:
    model = plain()
    model.compile(backend="eager")
    return model


def one_block() -> nn.Module:
    model = plain()
    model[1] = torch.compile(model[1], backend="eager")
    return model


COMPILED = {"whole": lambda: torch.compile(plain(), backend="eager"), "in place": in_place, "one block": one_block}


@pytest.mark.parametrize("name", COMPILED)
def test_a_survey_sees_the_python_too(name: str) -> None:
    x = torch.randn(2, 5, 16)
    expected, found = (relprop.survey(model, x, "attnlrp") for model in (plain(), COMPILED[name]()))
    assert [place.name for place, _ in found.places] == [place.name for place, _ in expected.places]
    assert found.unknown == expected.unknown


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_models(name: str) -> None:
    model, x = COMPILED[name](), torch.randn(2, 5, 16)
    expected = relprop.attribute(plain(), x, (4, 3), composite="attnlrp", layers="0")
    with torch.no_grad():
        before = model(x)
    found = relprop.attribute(model, x, (4, 3), composite="attnlrp", layers="0")
    assert torch.equal(found.values, expected.values)
    assert torch.equal(found.layers["0"], expected.layers["0"])
    with torch.no_grad():
        assert torch.equal(model(x), before)


@pytest.mark.parametrize("call", ["attribute", "propagate", "survey"])
def test_a_compiled_function_inside_a_model(call: str) -> None:
    """No module is compiled, so no list of modules tells; afterwards what was compiled is used again."""
    counter = CompileCounter()

    def doubled(x: Tensor) -> Tensor:
        return torch.relu(x) * 2

    compiled = torch.compile(doubled, backend=counter)
    layer, x = nn.Linear(4, 3).requires_grad_(False), torch.randn(2, 4)
    before = compiled(layer(x))
    assert counter.frame_count == 1
    if call == "propagate":
        live = x.clone().requires_grad_()
        with relprop.propagate("epsilon"):
            score = compiled(layer(live))[:, 0].sum()
        found = (live * torch.autograd.grad(score, live)[0]).detach()
    elif call == "attribute":
        found = relprop.attribute(lambda x: compiled(layer(x)), x, 0, composite="epsilon").values
    else:
        seen = relprop.survey(lambda x: compiled(layer(x)), x, "epsilon")
        assert [place.name for place, _ in seen.places] == ["linear", "relu", "mul"] and not seen.unknown
    if call != "survey":
        expected = relprop.attribute(lambda x: doubled(layer(x)), x, 0, composite="epsilon").values
        torch.testing.assert_close(found, expected)
    assert torch.equal(compiled(layer(x)), before) and counter.frame_count == 1


def test_threads_that_overlap_leave_the_switch_as_it_was() -> None:
    model, x = in_place(), torch.randn(2, 5, 16)
    expected = relprop.attribute(plain(), x, (4, 3), composite="attnlrp").values
    maps: list[Tensor] = []

    def explain() -> None:
        maps.extend(relprop.attribute(model, x, (4, 3), composite="attnlrp").values for _ in range(5))

    threads = [threading.Thread(target=explain) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(maps) == 15 and all(torch.equal(m, expected) for m in maps)
    counter = CompileCounter()
    torch.compile(lambda x: x + 1, backend=counter)(x)
    assert counter.frame_count == 1


class Reader(nn.Module):
    """Token ids, looked up and read by a recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.lstm, self.head = nn.Embedding(20, 8), nn.LSTM(8, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, ids: Tensor, bias: Tensor | None = None) -> Tensor:
        y = self.head(self.lstm(self.embedding(ids))[0][:, -1])
        return y if bias is None else y + bias


def capped() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU6(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 5)
    return nn.Sequential(*layers).eval()


def resnet() -> nn.Module:
    torch.manual_seed(0)
    return networks.ResNet().eval()


def pictures() -> Tensor:
    return 4 * torch.randn(2, 3, 8, 8)


RECORDED: dict[str, tuple[Any, Any, str, Any]] = {
    "decoder": (plain, lambda: torch.randn(2, 5, 16), "attnlrp", (4, 3)),
    "decoder, contrast": (plain, lambda: torch.randn(2, 5, 16), "auto", relprop.Contrast((4, 3), (4, 1))),
    "capped relu": (capped, pictures, "auto", None),
    "gamma": (resnet, lambda: torch.randn(2, 3, 16, 16), "gamma_flat", [1, 2]),
    "positive contributions": (resnet, lambda: torch.randn(2, 3, 16, 16), "epsilon_plus", None),
    "token ids": (Reader, lambda: torch.randint(20, (2, 6)), "auto", torch.tensor([2, 0])),
    "state space": (sequences.Mamba, lambda: torch.randn(2, 5, 8), "auto", lambda y: y[:, -1].sum(1)),
}


@pytest.mark.parametrize("name", RECORDED)
def test_one_graph_gives_the_maps_of_attribute(name: str) -> None:
    make, draw, composite, target = RECORDED[name]
    model = make().eval()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    torch._dynamo.utils.counters.clear()
    explain, compiled = relprop.compile(model, composite=composite, backend=counter), 0
    for _ in range(3):
        x = draw()
        found, expected = explain(x, target), relprop.attribute(model, x, target, composite=composite)
        torch.testing.assert_close(
            found.values, expected.values, rtol=1e-4, atol=1e-5 * float(expected.values.abs().max())
        )
        torch.testing.assert_close(found.score, expected.score)
        torch.testing.assert_close(found.residual, expected.residual, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(found.output, expected.output)
        assert found.target is target or found.target == expected.target
        assert found.rules == expected.rules and found.composite == expected.composite
        assert torch.equal(found.inputs, x)
        compiled = compiled or counter.frame_count  # dynamo may start over within a compilation
    assert explain.graphs == 1 and compiled == counter.frame_count
    assert not torch._dynamo.utils.counters["graph_break"]


def test_one_graph_serves_all_classes_and_seeds() -> None:
    """To rounding: on some processors the operations of a graph round otherwise than those of `attribute`."""
    close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-7)
    model, x = capped(), pictures()
    explain = relprop.compile(model, backend="aot_eager")
    for target in (0, [4, 1], torch.tensor([2, 3]), -1):
        close(explain(x, target).values, relprop.attribute(model, x, target).values)
    assert explain.graphs == 1
    for seed in (1.0, torch.tensor([2.0, -3.0])):
        close(explain(x, 1, seed=seed).values, relprop.attribute(model, x, 1, seed=seed).values)
    assert explain.graphs == 2
    labelled = relprop.compile(model, labels=list("abcde"), backend="aot_eager")
    close(labelled(x, "c").values, relprop.attribute(model, x, 2).values)


def test_layers_and_further_arguments() -> None:
    model, ids = Reader().eval(), torch.randint(20, (2, 6))
    explain = relprop.compile(model, layers=["lstm", "embedding"], backend="aot_eager")
    for bias in (torch.randn(2, 3), torch.randn(2, 3)):
        expected = relprop.attribute(model, ids, 1, layers=["lstm", "embedding"], forward_args=(bias,))
        found = explain(ids, 1, forward_args=(bias,))
        assert torch.equal(found.score, expected.score)
        torch.testing.assert_close(found.layers, expected.layers)
    assert explain.graphs == 1


def test_a_model_that_is_trained_on_needs_no_new_graph() -> None:
    model, x = capped(), pictures()
    explain = relprop.compile(model, backend="aot_eager")
    before = explain(x, 1).values
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    after = explain(x, 1).values
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, relprop.attribute(model, x, 1).values)
    assert explain.graphs == 1


def test_a_model_with_other_tensors_gets_a_new_graph() -> None:
    model, x = capped(), pictures()
    explain = relprop.compile(model, backend="aot_eager")
    explain(x, 1)
    model.double()
    found = explain(x.double(), 1).values
    assert torch.equal(found, relprop.attribute(model, x.double(), 1).values) and explain.graphs == 2
    model[5] = nn.Linear(36, 3).double()
    assert torch.equal(explain(x.double(), 1).values, relprop.attribute(model, x.double(), 1).values)
    assert explain.graphs == 3


def test_another_shape_gets_a_graph_of_its_own() -> None:
    model = plain()
    explain = relprop.compile(model, composite="attnlrp", backend="aot_eager")
    for steps in (5, 3, 5):
        x = torch.randn(1, steps, 16)
        assert torch.equal(explain(x, (2, 3)).values, relprop.attribute(model, x, (2, 3), composite="attnlrp").values)
    assert explain.graphs == 2


def test_a_compiled_model_is_followed_too() -> None:
    model, x = one_block(), torch.randn(2, 5, 16)
    found = relprop.compile(model, composite="attnlrp", backend="aot_eager")(x, (4, 3))
    assert torch.equal(found.values, relprop.attribute(plain(), x, (4, 3), composite="attnlrp").values)


def test_the_model_stays_as_it_was() -> None:
    model, x = resnet().requires_grad_(True), torch.randn(2, 3, 16, 16)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    relprop.compile(model, backend="aot_eager")(x)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


class Looking(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if bool(x.sum() > 0):
            return 2 * x
        return x


def test_a_model_that_looks_at_its_numbers_is_refused_with_the_line() -> None:
    x = torch.randn(2, 3)
    relprop.attribute(Looking(), x, 1)
    with pytest.raises(UnsupportedOperationError, match=r"test_compile\.py, line \d+ \(if bool\(x\.sum\(\) > 0\)"):
        relprop.compile(Looking(), backend="aot_eager")(x, 1)


def test_shapes_that_depend_on_numbers_are_refused() -> None:
    with pytest.raises(UnsupportedOperationError, match="nonzero"):
        relprop.compile(sequences.Mixture().eval(), backend="aot_eager")(torch.randn(2, 5, 16), (4, 3))


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"x": torch.full((2, 3, 8, 8), torch.nan)}, InputError),
        ({"x": torch.randn(2, 4, 8, 8)}, InputError),
        ({"target": 9}, TargetError),
        ({"target": [1]}, TargetError),
        ({"target": "cat"}, TargetError),
        ({"seed": float("nan")}, TargetError),
        ({"seed": torch.ones(3)}, TargetError),
    ],
)
def test_bad_input_is_refused_before_and_after_the_first_call(given: dict[str, Any], error: type) -> None:
    explain = relprop.compile(capped(), backend="aot_eager")
    options = {key: value for key, value in given.items() if key == "seed"}
    for _ in range(2):
        with pytest.raises(error):
            explain(given.get("x", pictures()), given.get("target", 1), **options)
        explain(pictures(), 1)


def test_training_mode_is_refused_after_the_first_call_too() -> None:
    model, x = capped(), pictures()
    explain = relprop.compile(model, backend="aot_eager")
    explain(x, 1)
    model.train()
    with pytest.raises(RelpropError, match="training mode"):
        explain(x, 1)


def test_a_map_that_is_not_finite_is_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 2, bias=False)).eval()
    nn.init.constant_(model[0].weight, 2.0)
    explain = relprop.compile(model, composite="zero", backend="aot_eager")
    explain(torch.randn(2, 3), 1)
    with pytest.raises(NonFiniteError):
        explain(torch.full((2, 3), 3e38), 1)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"composite": "no such"}, CompositeError),
        ({"layers": "no such"}, InputError),
        ({"layers_at": "middle"}, InputError),
        ({"fullgraph": False}, InputError),
        ({"backend": "no such"}, InputError),
        ({"no_such": 1}, InputError),
    ],
)
def test_options_are_checked_at_once(options: dict[str, Any], error: type) -> None:
    with pytest.raises(error):
        relprop.compile(capped(), **options)
    with pytest.raises(InputError, match="callable"):
        relprop.compile(3)


def test_objects_that_a_graph_would_freeze_are_refused() -> None:
    explain = relprop.compile(Reader().eval(), backend="aot_eager")
    with pytest.raises(InputError, match=r"forward_kwargs\['bias'\] is a object"):
        explain(torch.randint(20, (2, 6)), 1, forward_kwargs={"bias": object()})


def test_a_language_model_with_padding() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    explain = relprop.compile(model, backend="aot_eager")
    for padding in (0, 2):
        mask = torch.ones(2, 6, dtype=torch.int64)
        mask[0, :padding] = 0
        given = {"input_ids": torch.randint(40, (2, 6)), "attention_mask": mask}
        found, expected = explain(given, (-1, 3)), relprop.attribute(model, given, (-1, 3))
        torch.testing.assert_close(found.values["input_ids"], expected.values["input_ids"], rtol=1e-4, atol=1e-6)
        assert not found.values["input_ids"][0, :padding].any()
    assert explain.graphs == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # its own
def test_the_compiler_of_torch() -> None:
    model, x = plain(), torch.randn(2, 5, 16)
    expected = relprop.attribute(model, x, (4, 3), composite="attnlrp").values
    explain = relprop.compile(model, composite="attnlrp")
    for _ in range(2):
        torch.testing.assert_close(explain(x, (4, 3)).values, expected, rtol=1e-4, atol=1e-6)
    assert explain.graphs == 1


@pytest.mark.filterwarnings("ignore")  # dynamo tells of what it does not trace
def test_a_call_within_compiled_code_runs_whole_and_is_compiled_once() -> None:
    model, x = plain(), torch.randn(2, 5, 16)
    within = relprop.compile(model, composite="attnlrp", backend="aot_eager")

    def explain(x: Tensor) -> Tensor:
        x = 2 * x
        by_hand, by_graph = relprop.attribute(model, x, (4, 3), composite="attnlrp"), within(x, (4, 3))
        return by_hand.values + by_graph.values

    counter = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(explain, backend=counter)
    expected = 2 * relprop.attribute(model, 2 * x, (4, 3), composite="attnlrp").values
    torch.testing.assert_close(compiled(x), expected)
    frames = counter.frame_count
    assert frames <= 3  # what comes before, between and after: nothing of ours
    for _ in range(2):
        torch.testing.assert_close(compiled(x), expected)
    assert counter.frame_count == frames


@pytest.mark.slow
def test_a_function_that_explains_may_be_compiled_around_us() -> None:
    model, x = plain(), torch.randn(2, 5, 16)
    expected = relprop.attribute(model, x, (4, 3), composite="attnlrp").values

    def explain(x: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        with relprop.propagate("attnlrp"):
            score = model(x)[:, 4, 3].sum()
        return (x * torch.autograd.grad(score, x)[0]).detach()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # dynamo tells of what it does not trace
        compiled = torch.compile(explain, backend="aot_eager")
        for _ in range(2):
            torch.testing.assert_close(compiled(x), expected, rtol=1e-5, atol=1e-6)


def test_compiled_around_us_one_property_is_not_taken_for_another() -> None:
    """Torch's compiler knows no getter from another: `x.real` was `x.T` where it had compiled our own frames."""
    first, second, x = torch.randn(4, 4), torch.randn(4, 4), torch.randn(4, 4)

    def explain(x: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        with relprop.propagate("attnlrp"):
            score = (x.T @ first + x.real @ second).relu()[:, 3].sum()
        return (x * torch.autograd.grad(score, x)[0]).detach()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # dynamo tells of what it does not trace
        found = torch.compile(explain, backend="eager")(x)
    torch.testing.assert_close(found, explain(x))


def test_a_module_that_is_exchanged_and_a_hook_start_afresh() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Linear(4, 3)).double()
    x = torch.randn(2, 4, dtype=torch.float64)
    explain = relprop.compile(model, composite="zero", backend="eager")

    def check() -> None:
        torch.testing.assert_close(explain(x, 1).values, relprop.attribute(model, x, 1, composite="zero").values)

    check()
    model[1] = torch.nn.GELU()  # no tensor tells one from the other
    check()
    model[0].register_forward_hook(lambda module, args, out: out * torch.tensor([1.0, 2.0, 3.0, 4.0]).double())
    check()


def test_threads_that_compile_at_once_get_their_graphs() -> None:
    first, second = torch.randn(4, 4), torch.randn(4, 3)

    def model(x: Tensor) -> Tensor:
        return (x @ first).relu() @ second

    explain = relprop.compile(model, composite="zero", backend="aot_eager")
    inputs = [torch.randn(n, 4) for n in (1, 2, 3)] * 2
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda x: explain(x, 1).values, inputs))
    for x, values in zip(inputs, found, strict=True):
        torch.testing.assert_close(values, relprop.attribute(model, x, 1, composite="zero").values)
    assert explain.graphs == 3

"""Compiled models are explained as the Python they were made of; our own call can be compiled."""

from __future__ import annotations

import threading
import warnings

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

import relprop
import sequences


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


@pytest.mark.slow
def test_a_compiled_call_of_ours_is_correct() -> None:
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

"""One pass over a model finds what torch's own methods find, also after modules and parameters changed."""

from __future__ import annotations

import gc
import weakref
from random import Random

import pytest
import torch
from torch import nn

import relprop
from relprop.engine import members as engine_members
from relprop.engine.members import kept, members


def same(model: nn.Module) -> None:
    """Checks the members of a model against torch's own methods: the same objects under the same names, in order."""
    found = members(model)
    for ours, theirs in (
        (list(found.paths.items()), list(model.named_modules(remove_duplicate=False))),
        (found.modules, list(model.named_modules())),
        (found.parameters, list(model.named_parameters())),
    ):
        assert [(name, id(one)) for name, one in ours] == [(name, id(one)) for name, one in theirs]


def test_a_function_has_no_members() -> None:
    found = members(torch.relu)
    assert (found.paths, found.modules, found.parameters, found.size) == ({}, [], [], 0)


@pytest.mark.parametrize("seed", range(10))
def test_modules_and_parameters_that_are_replaced_added_shared_or_removed_are_noticed(seed: int) -> None:
    random = Random(seed)
    model = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)))
    for step in range(60):
        inner = [m for m in model.modules() if isinstance(m, nn.Sequential)]
        place, kind = random.choice(inner), random.randrange(7)
        if kind == 0 and len(inner) < 12:
            place.add_module(f"new{step}", nn.Sequential(nn.Linear(2, 2)))
        elif kind == 1 and len(place):
            place[random.randrange(len(place))] = nn.Linear(3, 3, bias=False)
        elif kind == 2 and len(place):
            del place[random.randrange(len(place))]
        elif kind == 3:  # one layer under two paths
            shared = nn.Linear(3, 3)
            place.add_module(f"a{step}", shared)
            model.add_module(f"b{step}", shared)
        elif kind == 4:  # tied weights
            one, other = nn.Linear(3, 3), nn.Linear(3, 3)
            other.weight = one.weight
            place.add_module(f"one{step}", one)
            place.add_module(f"other{step}", other)
        elif kind == 5:
            place.register_parameter(f"own{step}", None if step % 2 else nn.Parameter(torch.zeros(1)))
        else:
            place.add_module(f"none{step}", None)
        same(model)


def test_a_module_that_contains_itself_is_left_to_torch() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    model[0].parent = model
    with pytest.raises(RecursionError):
        list(model.named_modules(remove_duplicate=False))
    with pytest.raises(RecursionError):
        members(model)


def test_a_class_with_methods_of_its_own_is_asked() -> None:
    class Renamed(nn.Linear):
        def named_modules(self, memo=None, prefix="", remove_duplicate=True):
            yield f"{prefix}!", self

    class Hidden(nn.Sequential):
        def named_parameters(self, prefix="", recurse=True, remove_duplicate=True):
            yield from list(super().named_parameters(prefix, recurse, remove_duplicate))[:1]

    same(nn.Sequential(Renamed(2, 2)))
    same(Hidden(nn.Linear(2, 2)))


def test_a_replaced_layer_is_named_and_counted_in_the_next_explanation() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval(), torch.randn(1, 3)
    before = relprop.attribute(model, x, 0)
    assert before.model.parameters == 26
    model[1] = nn.Sequential(nn.Linear(4, 4), nn.ReLU()).eval()
    after = relprop.attribute(model, x, 0)
    assert after.model.parameters == 46
    assert [place.paths for place, _ in after.rules if place.family == "linear"] == [("0",), ("1.0",), ("2",)]
    model[2].to("meta")
    with pytest.raises(relprop.errors.ModelStateError, match=r"parameter '2.weight' is on device meta"):
        relprop.attribute(model, x, 0)


def test_a_child_that_changes_its_parent_name_or_class_is_noticed() -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), nn.Sequential(nn.Linear(2, 2)))
    same(model)
    moved = model[0]._modules.pop("1")
    model[1]._modules = {"1": moved, **model[1]._modules}  # the same modules, in the same order, under the same names
    same(model)
    assert members(model).paths["1.1"] is moved
    model[1]._modules["act"] = model[1]._modules.pop("1")
    same(model)

    class Own(nn.Linear):
        pass

    model[0][0].__class__ = Own
    assert members(model).standing[id(model[0][0])][1].endswith("Own")


def test_parameters_that_get_other_numbers_in_place_are_noticed() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval(), torch.randn(1, 3)
    relprop.attribute(model, x, 0)
    model.double()
    with pytest.raises(relprop.errors.InputError, match=r"the model is torch\.float64"):
        relprop.attribute(model, x, 0)
    model.float()
    model[2].weight.data = torch.randn(5, 4)
    model[2].bias = None
    assert relprop.attribute(model, x, 4).model.parameters == 12 + 4 + 20


def test_what_is_kept_goes_with_the_model() -> None:
    model = nn.Sequential(nn.Linear(3, 4))
    model[0].owner = [model]  # a child that leads back to the model
    members(model)
    gc.collect()  # what other tests left
    gone, before = weakref.ref(model), len(kept)
    assert model in kept
    del model
    gc.collect()
    assert gone() is None
    assert len(kept) == before - 1


def test_the_second_pass_makes_no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    members(model)
    monkeypatch.setattr(engine_members, "paths_of", None)
    same(model)

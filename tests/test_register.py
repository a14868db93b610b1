"""The register: each operation and each family is said once, and the order of saying it carries no meaning."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import relprop
from relprop.engine.registry import CUSTOM, FAMILIES, REFUSED, SILENT, TABLE
from relprop.errors import InputError
from relprop.rules.base import EVERYTHING

SOURCES = Path(relprop.operations.__file__).parent

SHUFFLED = """
import importlib, pathlib, random, sys, types
import relprop
from relprop.engine import registry

before, count = str(relprop.operations.table()), len(registry.TABLE)
package = relprop.operations
names = sorted(path.stem for path in pathlib.Path(package.__file__).parent.glob("*.py") if path.stem != "__init__")
for name in list(sys.modules):
    if name == "relprop.operations" or name.startswith("relprop.operations."):
        del sys.modules[name]
registry.TABLE.clear()
registry.FAMILIES.clear()
bare = types.ModuleType("relprop.operations")
bare.__path__ = package.__path__
sys.modules["relprop.operations"] = relprop.operations = bare
random.Random(int(sys.argv[1])).shuffle(names)
for name in names:
    importlib.import_module("relprop.operations." + name)
after = str(sys.modules["relprop.operations.register_table"].table())
assert sorted(after.splitlines()) == sorted(before.splitlines()), "the order of imports shows in the table"
assert len(registry.TABLE) == count
"""


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_imports_carries_no_meaning(seed: int) -> None:
    found = subprocess.run([sys.executable, "-c", SHUFFLED, str(seed)], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


def test_every_family_is_declared_with_its_meaning() -> None:
    assert set(FAMILIES) == EVERYTHING | {SILENT, REFUSED, CUSTOM}
    for family in FAMILIES.values():
        assert len(family.says) > 5


def test_no_module_registers_over_the_entry_of_another() -> None:
    for path in SOURCES.glob("*.py"):
        calls = re.findall(r"^ *(?:register|declare)\((?:[^()]|\([^()]*\))*\)", path.read_text(), re.MULTILINE)
        assert not [call for call in calls if "replace=" in call], path
        assert path.stem == "families" or "declare(" not in path.read_text(), path


def test_the_table_can_be_printed() -> None:
    rows = {row.operation: row for row in relprop.operations.table()}
    assert rows["relu"].family == "activation" and rows["relu"].gives == ("gate",)
    assert rows["softmax"].family == "softmax" and "softmax" in rows["softmax"].handler
    assert {"mul", "mul_", "__mul__", "__imul__"} <= set(rows["mul"].spellings)
    shown = str(relprop.operations.table("norm"))
    assert "layer_norm" in shown and "conv2d" not in shown
    assert FAMILIES["norm"].says in shown and FAMILIES["conv"].says not in shown


def test_a_family_that_is_not_there() -> None:
    with pytest.raises(InputError, match="unknown family 'nrom'; one of: linear"):
        relprop.operations.table("nrom")
    with pytest.raises(InputError, match="has no default handler: pass handler="):
        relprop.register(torch.ops.aten.isnan, family="division")
    assert torch.ops.aten.isnan not in TABLE


@pytest.mark.parametrize(
    "given, said",
    [
        ({"traits": "scales"}, r"traits is a set of names: write traits=\{'scales'\}"),
        ({"traits": {"scale"}}, "there is no trait 'scale'; there are: moves entries, .*of the first operand"),
        ({"gives": ["gate"]}, r"gives maps names of roles to values, as in \{'statistic': True\}"),
        ({"gives": {"gating": 1}}, "there is no role 'gating'; there are: .*gate.*statistic"),
        ({"handler": 3}, "handler is a function .*; got 3"),
        ({"family": "refused"}, "needs reason="),
    ],
)
def test_what_does_not_fit_is_refused_at_the_door(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        relprop.register(torch.ops.aten.isnan, **{"family": "structure", **given})
    assert torch.ops.aten.isnan not in TABLE


def test_a_registered_gate_is_a_gate() -> None:
    """The role is given by one operation of a user and kept by another, which a statistic divides."""
    library = torch.library.Library("register_test", "DEF")
    library.define("gate(Tensor x) -> Tensor")
    library.impl("gate", lambda x: x.tanh() / 2 + 0.5, "CompositeImplicitAutograd")
    library.define("over_rms(Tensor x, Tensor s) -> Tensor")
    library.impl("over_rms", lambda x, s: x / s, "CompositeImplicitAutograd")
    own = torch.ops.register_test
    relprop.register(own.gate, family="structure", only=True, gives={"gate": 2})

    def divided(call: Any, x: Tensor, s: Tensor) -> Any:
        return call(x, s.detach())

    relprop.register(
        own.over_rms, family="division", only=True, handler=divided, traits={"scales", "of the first operand"}
    )
    x, a = torch.randn(2, 3, 4, dtype=torch.float64)

    def product(x: Tensor, a: Tensor) -> Tensor:
        g = own.gate(a)
        return (x * own.over_rms(g, g.square().mean(1, keepdim=True).sqrt())).sum(1)

    R = relprop.attribute(product, (x, a), composite="cp_lrp")
    torch.testing.assert_close(R.values[0].sum(1), R.score)
    assert not R.values[1].any()

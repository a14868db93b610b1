"""The register: each operation and each family is said once, and the order of saying it carries no meaning."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

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
    assert FAMILIES["norm"].says in shown


def test_a_family_that_is_not_there() -> None:
    with pytest.raises(InputError, match="unknown family 'nrom'; one of: linear"):
        relprop.operations.table("nrom")
    with pytest.raises(InputError, match="has no default handler: pass handler="):
        relprop.register(torch.ops.aten.isnan, family="division")
    assert torch.ops.aten.isnan not in TABLE

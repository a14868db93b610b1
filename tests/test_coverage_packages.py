"""The second part of `docs/coverage.md`: what is not installed is listed, no failure; and each part is written alone."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.coverage import packages, table
from benchmarks.coverage.architectures import LIBRARIES, Architecture
from benchmarks.coverage.check import Row, examine
from benchmarks.coverage.packages.graphs import EDGES, of_node

PAGE = Path(__file__).parents[1] / "docs" / "coverage.md"


def test_there_are_thirty_and_no_name_twice() -> None:
    names = [(one.library, one.name) for one in packages.ALL]
    assert len(names) == len(set(names)) >= 30
    assert not {one.library for one in packages.ALL} & set(LIBRARIES)


def test_the_page_holds_both_parts() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text.count("# Coverage\n") == 1 and text.count("## Packages for one kind of data\n") == 1
    assert not [one.name for one in packages.ALL if f"`{one.name}`" not in text]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("one", packages.ALL, ids=lambda one: f"{one.library}-{one.name}")
def test_what_is_not_installed_is_no_failure(one: Architecture) -> None:
    if importlib.util.find_spec(one.library) is not None:
        pytest.skip("it is installed; `make coverage-packages` examines it")
    row = examine(one)
    assert row.absent and row.faults == []


def test_a_part_that_is_not_examined_stays() -> None:
    of_library = Row("resnet18", "timm", "convolutional", composite="gamma_flat")
    of_package = Row("GCN", "torch_geometric", "graphs", composite="epsilon")
    both = table.page([of_library, of_package])
    assert "`resnet18`" in both and "`GCN`" in both
    changed = table.page([Row("GIN", "torch_geometric", "graphs")], both)
    assert "`resnet18`" in changed and "`GIN`" in changed and "`GCN`" not in changed
    changed = table.page([Row("vgg16", "timm", "convolutional")], both)
    assert "`vgg16`" in changed and "`GCN`" in changed and "`resnet18`" not in changed
    absent = table.page([of_package, Row("MAF", "zuko", "densities", absent="zuko")])
    assert "**1 of 1** pass" in absent and "### Not installed\n\n`MAF` (zuko)." in absent
    refused = table.page([Row("Leaky", "snntorch", "spikes", error="UnsupportedOperationError: why")])
    assert "### What is refused\n\n- `Leaky` (snntorch): UnsupportedOperationError: why" in refused


def test_lines_of_some_rows_are_renewed() -> None:
    rows = [Row(name, library, "convolutional", composite="gamma_flat") for name, library in
            (("resnet18", "timm"), ("vgg16", "timm"), ("resnet18", "torchvision"))]  # fmt: skip
    order = [(row.library, row.name) for row in rows]
    before = table.page([*rows, Row("GCN", "torch_geometric", "graphs", composite="epsilon")])
    later = Row("resnet18", "torchvision", "convolutional", composite="gamma_box")
    after = table.renewed(before, [later], order)
    changed = [(a, b) for a, b in zip(before.split("\n"), after.split("\n"), strict=True) if a != b]
    assert [(a.count("gamma_flat"), b.count("gamma_box")) for a, b in changed] == [(1, 1)]
    assert [line.count("gamma_box") for line in after.split("\n") if "`resnet18`" in line] == [0, 1]
    for wrong in (Row("resnet18", "timm", "convolutional", error="why"), Row("new", "timm", "convolutional")):
        with pytest.raises(ValueError, match="write the whole page"):
            table.renewed(before, [wrong], [*order, ("timm", "new")])


def test_lines_of_some_packages_are_renewed() -> None:
    noted = Row("KAN", "kan", "tables", composite="epsilon", notes=["need not conserve: why"])
    rows = [
        Row("GCN", "torch_geometric", "graphs", composite="epsilon"),
        noted,
        Row("GIN", "torch_geometric", "graphs"),
    ]
    before = table.page(
        [Row("resnet18", "timm", "convolutional"), *rows, Row("MAF", "zuko", "densities", absent="zuko")]
    )
    renewed = Row("GCN", "torch_geometric", "graphs", composite="zero", notes=["all relevance is 0"])
    after = table.renewed_packages(before, [renewed, Row("GIN", "torch_geometric", "graphs", absent="torch_geometric")])
    lines, old = after.split("\n"), before.split("\n")
    assert [a for a in old if a not in lines] == [table.line_of_package(rows[0])]
    assert [b for b in lines if b not in old] == [table.line_of_package(renewed), *table.notes_of([renewed])]
    assert table.renewed_packages(after, [rows[0]]) == before and table.renewed_packages(before, [noted]) == before
    for wrong in (Row("GCN", "torch_geometric", "graphs", error="why"), Row("new", "zuko", "densities")):
        with pytest.raises(ValueError, match="write the whole part"):
            table.renewed_packages(before, [wrong])


class Neighbours(nn.Module):
    """A graph network as such packages write one."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 3)

    def forward(self, x, edge_index):  # type: ignore[no-untyped-def]
        source, target = edge_index
        messages = self.linear(x)[source]
        return messages.new_zeros(len(x), 3).index_add(0, target, messages).relu()


@pytest.mark.filterwarnings("ignore")
def test_a_graph_is_examined_by_one_node() -> None:
    row = examine(
        Architecture(
            "neighbours", "none", "graphs", Neighbours, lambda: torch.randn(7, 6), of_node, {"edge_index": EDGES},
            mixes="nodes are neighbours",
        )
    )  # fmt: skip
    assert row.faults == [] and row.equal and row.books is not None and row.alone is None

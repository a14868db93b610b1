"""Random programs: each property holds on every program that is tried. `make programs` tries many more."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from helpers import only_what_is_new
from program_operations import BLOCKS, SINGLE, TABLE
from program_properties import PROPERTIES, Broken, fault, nothing_stays_alive
from programs import DISTINCT, Node, Program, draw, draw_blocks

FEW = 200
"""How many programs each property is tried on here."""


@pytest.fixture(scope="module", autouse=True)
def _only_what_is_new() -> Iterator[None]:
    with only_what_is_new():
        yield


@pytest.mark.parametrize("name", PROPERTIES)
def test_a_property_of_all_programs(name: str) -> None:
    step = 4 if PROPERTIES[name] is nothing_stays_alive else 1
    for seed in range(0, FEW, step):
        program = draw(seed)
        if (found := fault(program, (name,))) is not None:
            pytest.fail(f"{found[1]!r}: python tests/try_programs.py --seed {seed} shows and shrinks it")


@pytest.mark.parametrize("name", PROPERTIES)
def test_a_property_of_all_programs_of_blocks(name: str) -> None:
    step = 4 if PROPERTIES[name] is nothing_stays_alive else 1
    for seed in range(0, FEW // 2, step):
        program = draw_blocks(seed)
        if (found := fault(program, (name,))) is not None:
            pytest.fail(f"{found[1]!r}: python tests/try_programs.py --blocks --seed {seed} shows and shrinks it")


def test_a_seed_makes_the_same_program_again() -> None:
    for seed in range(20):
        assert draw(seed) == draw(seed)
        assert draw(seed).source() == draw(seed).source()
        assert torch.equal(draw(seed).inputs(), draw(seed).inputs())


@pytest.mark.parametrize("name", TABLE)
def test_all_spellings_compute_the_same(name: str) -> None:
    """What the programs take for spellings of one operation has one value and one gradient."""
    operation = TABLE[name]
    tried = 0
    for seed in range(400):
        program = draw(seed, (name, "negate") if name in DISTINCT else (name,), longest=2)
        if not any(node.operation == name for node in program.nodes) or tried == 6:
            continue
        tried += 1
        x = program.inputs()
        wanted = program.spelled(None).build()(x.clone())
        for spelling in range(len(operation.spellings)):
            one = Program(
                seed, program.shape, program.samples, program.nodes, program.head,
                tuple(spelling if node.operation == name else 0 for node in program.nodes),
            )  # fmt: skip
            with torch.no_grad():
                got = one.build()(x.clone())
            within = 10.0 ** -min(operation.digits, 9)
            torch.testing.assert_close(got, wanted, rtol=within, atol=within, msg=lambda m: f"{m}\n{one.source()}")  # noqa: B023
    assert tried


def test_a_program_shrinks_to_what_fails() -> None:
    """Of a fault that one operation makes, the operation is left."""
    for seed in range(200):
        program = draw(seed)
        if any(node.operation == "softmax" for node in program.nodes):
            small = program.shrunk(lambda p: any(node.operation == "softmax" for node in p.nodes))
            assert [node.operation for node in small.nodes] == ["softmax"]
            assert small.samples == 1 and not small.head and small.spellings == (0,)
            return
    pytest.fail("no program has a softmax")


def test_a_fault_is_found() -> None:
    """A property that is broken is not passed over."""
    relu = Node("relu", (0,), (), (), 0)
    program = Program(1, (3,), 2, (relu,), False, (0,))
    assert fault(program) is None

    def broken(_: Program) -> None:
        raise Broken("on purpose")

    PROPERTIES["broken"] = broken
    try:
        found = fault(program, ("broken",))
    finally:
        del PROPERTIES["broken"]
    assert found is not None and found[0] == "broken"


def test_programs_are_as_varied_as_said() -> None:
    """2 to 25 operations, branches, reuse, writes in place, and all operations of the table."""
    programs = [draw(seed) for seed in range(400)]
    lengths = [len(program.nodes) for program in programs]
    assert min(lengths) <= 3 and max(lengths) >= 25
    assert {node.operation for program in programs for node in program.nodes} == set(SINGLE)
    of_blocks = {node.operation for seed in range(400) for node in draw_blocks(seed).nodes}
    assert of_blocks >= set(BLOCKS)
    assert any(program.exact for program in programs) and not all(program.exact for program in programs)
    reused = [
        p
        for p in programs
        if len({n for node in p.nodes for n in node.operands}) < sum(len(n.operands) for n in p.nodes)
    ]
    written = [p for p in programs if "_(" in p.source() or "+= " in p.source()]
    assert len(reused) > 50 and len(written) > 50

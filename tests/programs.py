"""Random programs of torch: a value that a seed makes, that prints as a Python module, and that shrinks.

`tests/test_programs.py` tries some of them in every run, `make programs ARGS=10000` (`tests/try_programs.py`) so many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from random import Random
from types import CodeType
from typing import Any

import torch
from torch import Tensor, nn

from program_draws import Shape
from program_operations import BLOCKS, SINGLE, TABLE

HEADER = '''import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import nn


def constant(kind, seed, *shape):
    """A constant of the model: a parameter, or for a buffer a mask or a statistic."""
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    if kind == "mask":
        return values > 0
    if kind in ("mean", "variance"):
        return values if kind == "mean" else values.abs() + 0.5
    return nn.Parameter(values / shape[-1] ** 0.5 if kind == "weight" else values)


def given(module, **tensors):
    """A module with these parameters and buffers."""
    for name, tensor in tensors.items():
        if name in module._buffers:
            module._buffers[name] = tensor
        else:
            module._parameters[name] = tensor
    return module.eval()
'''


@dataclass(frozen=True)
class Node:
    """One operation: on which values (0 is the input, n the n-th node's), and the seed of its constants."""

    operation: str
    operands: tuple[int, ...]
    settings: tuple[tuple[str, Any], ...]
    constants: tuple[tuple[str, str, Shape], ...]
    seed: int


@dataclass(frozen=True)
class Program:
    """A program over samples of one shape, and the inputs that it is tried on.

    The last value is the result: flattened, or weighed into two scores (`head`).
    """

    seed: int
    shape: Shape
    samples: int
    nodes: tuple[Node, ...]
    head: bool
    spellings: tuple[int, ...] = ()

    @property
    def exact(self) -> bool:
        """Whether LRP-0 on it is input times gradient."""
        return all(TABLE[node.operation].exact for node in self.nodes)

    @property
    def digits(self) -> int:
        return min((TABLE[node.operation].digits for node in self.nodes), default=15)

    def spelled(self, random: Random | None) -> Program:
        """With spellings drawn anew; the plainest, for None."""
        chosen = tuple(0 if random is None else random.randrange(len(TABLE[n.operation].spellings)) for n in self.nodes)
        return replace(self, spellings=chosen)

    def inputs(self) -> Tensor:
        """Samples of which a third is exactly zero, some wholly along an axis."""
        made = torch.Generator().manual_seed(self.seed)
        x = torch.randn(self.samples, *self.shape, generator=made, dtype=torch.float64)
        x[torch.rand(x.shape, generator=made) < 0.2] = 0.0
        axis = self.seed % x.ndim
        if axis and self.seed % 3 == 0:
            x.select(axis, self.seed % x.shape[axis]).zero_()
        return x

    def source(self) -> str:
        """The program as a module of Python, with its class `Model`."""
        prepared, lines = _render(self)
        body = ["class Model(nn.Module):"]
        body += ["    def __init__(self):", "        super().__init__()", *(f"        {line}" for line in prepared), ""]
        body += ["    def forward(self, x):", *(f"        {line}" for line in lines)]
        return "\n".join([HEADER, "", *body, ""])

    def build(self) -> nn.Module:
        """The model. Its source can be read in tracebacks."""
        names: dict[str, Any] = {}
        exec(_compiled(self), names)
        return names["Model"]().eval()

    def shrunk(self, fails: Callable[[Program], bool]) -> Program:
        """The smallest program found that still fails: shorter, plainer, of fewer samples."""
        found = self
        while (smaller := next((p for p in found._smaller() if fails(p)), None)) is not None:
            found = smaller
        return found

    def _smaller(self) -> Iterator[Program]:
        for end in range(1, len(self.nodes)):
            yield _used(replace(self, nodes=self.nodes[:end], spellings=self.spellings[:end]))
        for number in range(len(self.nodes), 0, -1):
            for operand in self.nodes[number - 1].operands:
                yield _used(_without(self, number, operand))
        if self.samples > 1:
            yield replace(self, samples=1)
        for n, spelling in enumerate(self.spellings):
            if spelling:
                yield replace(self, spellings=(*self.spellings[:n], 0, *self.spellings[n + 1 :]))
        if self.head:
            yield replace(self, head=False)


@lru_cache(maxsize=64)
def _compiled(program: Program) -> CodeType:
    return compile(program.source(), f"<program {program.seed}>", "exec")


@lru_cache(maxsize=256)
def step(node: Node, spelling: int = 0) -> Callable[..., Tensor]:
    """What one node does, by its plainest spelling or another. One that writes into its operand writes into a copy."""
    names: dict[str, Any] = {}
    body = [line.removeprefix("@") for line in TABLE[node.operation].spellings[spelling].splitlines()]
    copied = ["y = a.clone()"] if any("{t}" in line for line in body) else []
    lines = [*_declared(node, 0), *copied, *body, "return y"]
    text = "\n".join(["def step(self, a, b=None):", *(f"    {line}" for line in lines)])
    exec(HEADER + text.format(**_names(node, 0), a="a", b="b", y="y", t="y"), names)
    return lambda *operands: names["step"](nn.Module(), *operands)


def _without(program: Program, number: int, operand: int) -> Program:
    """The program in which an operand stands for the result of a node."""

    def renumbered(n: int) -> int:
        n = operand if n == number else n
        return n - 1 if n > number else n

    nodes = [replace(n, operands=tuple(map(renumbered, n.operands))) for n in program.nodes]
    spellings = list(program.spellings)
    del nodes[number - 1], spellings[number - 1 : number]
    return replace(program, nodes=tuple(nodes), spellings=tuple(spellings))


def _used(program: Program) -> Program:
    """The program without nodes whose result nobody reads."""
    kept = sorted(_read(program))
    renumbered = {0: 0} | {n: place for place, n in enumerate(kept, 1)}
    nodes = [program.nodes[n - 1] for n in kept]
    nodes = [replace(node, operands=tuple(renumbered[n] for n in node.operands)) for node in nodes]
    return replace(
        program, nodes=tuple(nodes), spellings=tuple(program.spellings[n - 1] for n in kept if program.spellings)
    )


def _read(program: Program) -> set[int]:
    """The nodes on which the result depends."""
    read, open_ = set(), [len(program.nodes)]
    while open_:
        n = open_.pop()
        if n and n not in read:
            read.add(n)
            open_ += program.nodes[n - 1].operands
    return read


def _names(node: Node, number: int) -> dict[str, Any]:
    names = {name: f"self.{name}{number}" for name, _, _ in node.constants}
    return dict(node.settings) | names | {"n": number}


def _declared(node: Node, number: int) -> list[str]:
    made = []
    for index, (name, kind, shape) in enumerate(node.constants):
        arguments = ", ".join(map(repr, (kind, node.seed + index, *shape)))
        value = f"constant({arguments})"
        buffer = f"self.register_buffer('{name}{number}', {value})"
        made.append(buffer if kind in ("mask", "mean", "variance") else f"self.{name}{number} = {value}")
    return made


def _render(program: Program) -> tuple[list[str], list[str]]:
    """The lines of `__init__` and of `forward`."""
    names = ["x"]
    owners = [0]  # which values share their memory: 0 is the caller's
    fixed = set()  # views of which torch made several at once: it lets nobody write into one
    prepared, lines = [], []
    last_use = {
        n: max([i for i, node in enumerate(program.nodes, 1) if n in node.operands], default=0)
        for n in range(len(program.nodes) + 1)
    }
    for number, node in enumerate(program.nodes, 1):
        operation = TABLE[node.operation]
        text = operation.spellings[program.spellings[number - 1] if program.spellings else 0]
        given = _names(node, number) | dict(zip("ab", (names[n] for n in node.operands), strict=False))
        prepared += _declared(node, number)
        result, owner = f"h{number}", number
        if "{t}" in text:
            target = node.operands[0]
            shared = [
                n
                for n in range(number)
                if owners[n] == owners[target] and (last_use[n] > number or n in node.operands[1:])
            ]
            if (
                owners[target]
                and not {owners[target]} & fixed
                and not shared
                and last_use[target] == number
                and node.operands.count(target) == 1
            ):
                result, owner = names[target], owners[target]
            else:
                lines.append(f"{result} = {names[target]}.clone()")
                given["a"] = result
        elif operation.aliases:
            owner = owners[node.operands[0]]
            fixed |= {owner} if "split" in text else set()
        for line in text.format(**given, t=result, y=result).splitlines():
            (prepared if line.startswith("@") else lines).append(line.removeprefix("@"))
        names.append(result)
        owners.append(owner)
    lines.append(f"scores = {names[-1]}.flatten(1)")
    if program.head:
        prepared.append(f"self.head = constant('weight', {program.seed}, {_width(program)}, 2)")
        lines.append("scores = scores @ self.head")
    lines.append("return scores")
    return prepared, lines


_WIDTHS: dict[Any, int] = {}


def _width(program: Program) -> int:
    """How many numbers the last value holds per sample."""
    key = replace(program, head=False, spellings=())
    if key not in _WIDTHS:
        with torch.no_grad():
            _WIDTHS[key] = key.build()(key.inputs()).shape[1]
    return _WIDTHS[key]


def draw(seed: int, operations: tuple[str, ...] = tuple(SINGLE), longest: int = 25) -> Program:
    """The program of a seed, of 2 to `longest` operations; half of the programs are of `exact` operations alone."""
    random = Random(seed)
    shape = tuple(random.randint(2, 4) for _ in range(random.choice((1, 2, 2, 2, 3))))
    samples = random.choice((1, 2, 3, 4))
    exact = random.random() < 0.5
    allowed = [name for name in operations if TABLE[name].exact or not exact] or list(operations)
    if random.random() < 0.8:
        allowed = [name for name in allowed if TABLE[name].digits == 15] or allowed
    if random.random() < 0.5:  # of few kinds, which then meet often
        allowed = random.sample(allowed, min(len(allowed), random.randint(4, 10)))
    program = Program(seed, shape, samples, (), head=random.random() < 0.5)
    values = [program.inputs()]
    wanted = random.randint(2, longest)
    for _ in range(wanted * 10):
        if len(_read(program)) >= wanted:
            break
        read = {n for node in program.nodes for n in node.operands}
        unread = [n for n in range(len(values)) if n not in read]
        node = _node(random, random.choice(allowed), values, unread)
        value = None if node is None else _value(node, values)
        if value is not None:
            program = replace(program, nodes=(*program.nodes, node))
            values.append(value)
    return _used(program).spelled(random)


def draw_blocks(seed: int) -> Program:
    """The program of a seed, in which every other operation is a block of a network."""
    return draw(seed, (*SINGLE, *tuple(BLOCKS) * (len(SINGLE) // len(BLOCKS))), longest=10)


DISTINCT = ("maximum", "choose")
"""Operations that mean nothing with one value twice."""


def _node(random: Random, name: str, values: list[Tensor], unread: list[int]) -> Node | None:
    operation = TABLE[name]

    def value(*others: Shape) -> int | None:
        """One that fits, rather one that nobody has read yet."""
        among = [n for n in range(len(values)) if operation.fits(*others, *[tuple(values[n].shape[1:])] * lacking)]
        fresh = [n for n in among if n in unread]
        among = fresh if fresh and random.random() < 0.9 else among
        return random.choice(among) if among else None

    lacking = operation.arity
    if (first := value()) is None:
        return None
    operands, lacking = [first], 1
    if operation.arity == 2:
        second = value(tuple(values[first].shape[1:]))
        assert second is not None  # a value fits itself
        operands.append(second)
        if name in DISTINCT and operands[0] == second:
            return None
    settings, constants = operation.draw(random, *(tuple(values[n].shape[1:]) for n in operands))
    kinds = tuple((key, kind, tuple(shape)) for key, (kind, shape) in constants.items())
    return Node(name, tuple(operands), tuple(settings.items()), kinds, random.randrange(10**6))


def _value(node: Node, values: list[Tensor]) -> Tensor | None:
    """What a node makes of values; None where that grows beyond all bounds."""
    with torch.no_grad():
        value = step(node)(*(values[n] for n in node.operands))
    fine = value.numel() <= 256 and bool(torch.isfinite(value).all()) and float(value.abs().max()) < 1e3
    return value if fine else None

"""What a mutant is: the library with one operator, comparison, constant, condition or statement changed.

Changes that cannot matter, or that no test should pin down, are left out by these rules:

- annotations, decorators, base classes, imports, assertions, `if TYPE_CHECKING`, protocols and docstrings;
- texts: `raise` statements (not the condition above one), `warn(...)`, f-strings, `__repr__`, `__str__`, and functions
  that are annotated to return `str`;
- `cast`, `TypeVar` and `lru_cache(...)` calls, which only type checkers or speed see;
- conditions that ask `own(...)`, made false: then a copy is made where memory could be reused;
- what Python's compiler makes the same code of.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Mutant(NamedTuple):
    file: str
    function: str
    line: int
    span: tuple[int, int]
    """First and last line of the statement that the change is in (of a block, its head)."""
    what: str

    @property
    def key(self) -> str:
        """The same after lines were added elsewhere."""
        return f"{self.file} {self.function}: {self.what}"


_OPERATORS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult}
_OPERATORS |= {ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.MatMult: ast.Mult}
_OPERATORS |= {ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd}
_COMPARISONS = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
}
_COMPARISONS |= {ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In}
_UNSEEN = {"cast", "TypeVar", "lru_cache", "warn"}


def mutants(file: Path, home: Path) -> list[Mutant]:
    """Every mutant of a file."""
    return [mutant for mutant, _, _ in _each(ast.parse(file.read_text()), file, home)]


def text_of(mutant: Mutant, home: Path) -> str | None:
    """The file's new text; None if Python makes the same code of it."""
    tree = ast.parse((home / mutant.file).read_text())
    unchanged = _code(tree)
    for one, place, other in _each(tree, home / mutant.file, home):
        if one.key == mutant.key:
            _put(place, other)
            text = ast.unparse(ast.fix_missing_locations(tree))
            return None if _code(ast.parse(text)) == unchanged else text
    raise LookupError(mutant.key)


def _each(tree: ast.Module, file: Path, home: Path) -> Iterator[tuple[Mutant, Place, ast.AST]]:
    numbers: dict[str, int] = {}
    for place in list(_places(tree)):
        child, statement = _at(place), place.statement
        for what, other in _changes(child):
            what = f"{what}: {_short(child)} -> {_short(other)}"
            numbers[place.function + what] = nth = numbers.get(place.function + what, 0) + 1
            body = getattr(statement, "body", None)
            end = body[0].lineno - 1 if isinstance(body, list) else statement.end_lineno or 0
            span = statement.lineno, max(end, statement.lineno)
            named = what + f" ({nth})" * (nth > 1)
            yield Mutant(str(file.relative_to(home)), place.function, child.lineno, span, named), place, other  # type: ignore[attr-defined]


def _short(node: ast.AST) -> str:
    if isinstance(node, ast.If):
        return f"if {ast.unparse(node.test)}:"
    return ast.unparse(ast.fix_missing_locations(node)).splitlines()[0]


def _code(tree: ast.Module) -> tuple[object, ...]:
    """What the compiler makes of it, without the lines."""

    def of(code: object) -> object:
        if not hasattr(code, "co_code"):
            return type(code), repr(code)
        return code.co_code, code.co_names, code.co_varnames, tuple(map(of, code.co_consts))

    return of(compile(tree, "mutant", "exec"))  # type: ignore[return-value]


def _changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """What may stand in a node's place."""
    owned = isinstance(node, (ast.If, ast.IfExp, ast.BoolOp)) and _asks_own(getattr(node, "test", node))
    new = copy.deepcopy(node)
    match new:
        case ast.BinOp() if type(new.op) in _OPERATORS:
            new.op = _OPERATORS[type(new.op)]()
            yield "operator", new
        case ast.Compare() if len(new.ops) == 1 and type(new.ops[0]) in _COMPARISONS:
            new.ops = [_COMPARISONS[type(new.ops[0])]()]
            yield "comparison", new
        case ast.BoolOp():
            new.op = ast.Or() if isinstance(new.op, ast.And) else ast.And()
            yield "and, or", new
            for n in range(len(new.values)):
                rest = [v for m, v in enumerate(node.values) if m != n]  # type: ignore[attr-defined]
                yield "condition dropped", rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest)  # type: ignore[attr-defined]
        case ast.UnaryOp():
            yield "sign or not dropped", new.operand
        case ast.Constant() if isinstance(new.value, bool):
            yield "constant", ast.Constant(not new.value)
        case ast.Constant() if isinstance(new.value, (int, float)):
            yield "constant", ast.Constant(new.value + 1)
        case ast.IfExp():
            yield "always", new.body
            if not owned:
                yield "never", new.orelse
        case ast.If():
            for value in (True, False)[: 1 if owned else 2]:
                new = copy.deepcopy(node)
                new.test = ast.Constant(value)  # type: ignore[attr-defined]
                yield "always" if value else "never", new
        case ast.Expr(value=ast.Call()) | ast.AugAssign():
            yield "statement dropped", ast.Pass()


def _asks_own(test: ast.AST) -> bool:
    return any(isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == "own" for n in ast.walk(test))


class Place(NamedTuple):
    """Where an expression or a statement stands, with the statement and the function or class it is in."""

    node: ast.AST
    field: str
    number: int | None
    statement: ast.stmt
    function: str


def _at(place: Place) -> ast.AST:
    value = getattr(place.node, place.field)
    return value if place.number is None else value[place.number]


def _put(place: Place, value: ast.AST) -> None:
    if place.number is None:
        setattr(place.node, place.field, value)
    else:
        getattr(place.node, place.field)[place.number] = value


def _left_out(node: ast.AST) -> bool:
    match node:
        case ast.Raise() | ast.Assert() | ast.Import() | ast.ImportFrom() | ast.JoinedStr():
            return True
        case ast.FunctionDef(name="__repr__" | "__str__") | ast.FunctionDef(returns=ast.Name(id="str")):
            return True
        case ast.Call(func=ast.Name(id=name)) | ast.Call(func=ast.Attribute(attr=name)):
            return name in _UNSEEN
        case ast.Expr(value=ast.Call()) as expression:
            return _left_out(expression.value)
        case ast.If(test=ast.Name(id="TYPE_CHECKING")) | ast.ClassDef(bases=[ast.Name(id="Protocol")]):
            return True
    return False


def _places(node: ast.AST, statement: ast.stmt | None = None, function: str = "") -> Iterator[Place]:
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "bases", "keywords") and not isinstance(node, ast.Call):
            continue
        for number, child in enumerate(value) if isinstance(value, list) else ((None, value),):
            if not isinstance(child, ast.AST) or _left_out(child):
                continue
            inside = child if isinstance(child, ast.stmt) else statement
            if function and inside is not None and isinstance(child, (ast.expr, ast.stmt)):
                yield Place(node, field, number, inside, function)
            named = isinstance(child, (ast.FunctionDef, ast.ClassDef))
            name = f"{function}.{child.name}".lstrip(".") if named else function  # type: ignore[attr-defined]
            yield from _places(child, inside, name)

"""Which object an attribute is assigned on, judged by its type as far as annotations tell. For tests of the code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

Function = ast.FunctionDef | ast.AsyncFunctionDef
COPIES = ("copy.copy", "copy.deepcopy", "object.__new__")


@dataclass
class Known:
    """The classes of a package by name, and the types that its functions return."""

    classes: dict[str, ast.ClassDef] = field(default_factory=dict)
    returns: dict[str, set[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, files: list[Path]) -> Known:
        known = cls()
        for path in files:
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef):
                    known.classes[node.name] = node
                elif isinstance(node, Function):
                    known.returns.setdefault(node.name, set()).add(class_in(node.returns))
        return known

    def field(self, name: str, attribute: str) -> str:
        """The annotated type of a class's field."""
        for part in self.classes[name].body if name in self.classes else ():
            if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name) and part.target.id == attribute:
                return class_in(part.annotation)
        return ""


def class_in(annotation: ast.expr | None) -> str:
    """The class that an annotation names, beside `None`; empty if it names several, or nothing."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode="eval").body
    if isinstance(annotation, ast.BinOp):
        sides = {class_in(annotation.left), class_in(annotation.right)} - {"None"}
        return sides.pop() if len(sides) == 1 else ""
    return "" if annotation is None else ast.unparse(annotation)


def pairs(node: ast.AST) -> Iterator[tuple[ast.expr, ast.expr | None]]:
    """The targets of a statement, each with its value where it has one of its own."""
    if isinstance(node, (ast.AnnAssign, ast.NamedExpr)):
        yield node.target, node.value
    elif isinstance(node, ast.AugAssign):
        yield node.target, None
    elif isinstance(node, ast.Assign):
        for target in node.targets:
            if not isinstance(target, (ast.Tuple, ast.List)):
                yield target, node.value
            elif isinstance(node.value, ast.Tuple) and len(node.value.elts) == len(target.elts):
                yield from zip(target.elts, node.value.elts, strict=True)
            else:
                yield from ((one, None) for one in target.elts)


def assigned(node: ast.AST) -> Iterator[ast.expr]:
    """What a statement assigns to; of `x.y[i] = ...` that is `x.y`."""
    for target, _ in pairs(node):
        yield target.value if isinstance(target, ast.Subscript) else target


class Scope:
    """The names that a function binds: their types, and whether it made what they name."""

    def __init__(
        self, known: Known, node: Function | ast.Module, outer: Scope | None, within: ast.ClassDef | None
    ) -> None:
        self.known, self.node, self.outer, self.within = known, node, outer, within
        self.types: dict[str, str] = {}
        self.made: set[str] = {"self", "cls"}
        if isinstance(node, Function):
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            self.types = {one.arg: class_in(one.annotation) for one in given}
            if within is not None and given and given[0].arg in self.made:
                self.types[given[0].arg] = within.name
            if within is not None and any(ast.unparse(base).endswith("autograd.Function") for base in within.bases):
                self.made.add("ctx")
        for part in self.own():
            if isinstance(part, (Function, ast.ClassDef)):
                self.made.add(part.name)
            for target, value in pairs(part):
                if isinstance(target, ast.Name):
                    self._bind(target.id, class_in(getattr(part, "annotation", None)), value)

    def own(self) -> Iterator[ast.AST]:
        """The nodes of the function in order, without what stands in functions and classes inside it."""
        waiting: list[ast.AST] = self.node.body[::-1]
        while waiting:
            node = waiting.pop()
            yield node
            if not isinstance(node, (Function, ast.ClassDef, ast.Lambda)):
                waiting += [*ast.iter_child_nodes(node)][::-1]

    def _bind(self, name: str, said: str, value: ast.expr | None) -> None:
        self.types[name] = said or self.types.get(name) or self.type(value)
        if isinstance(value, ast.Call):
            function = ast.unparse(value.func)
            if function in COPIES or function.split(".")[-1][:1].isupper():
                self.made.add(name)

    def type(self, value: ast.expr | None) -> str:
        """The class of an expression's value; empty if annotations do not tell."""
        if isinstance(value, ast.Name):
            return self.types.get(value.id) or ("" if self.outer is None else self.outer.type(value))
        if isinstance(value, ast.Attribute):
            return self.known.field(self.type(value.value), value.attr)
        if isinstance(value, ast.IfExp):
            found = {self.type(part) for part in (value.body, value.orelse) if ast.unparse(part) != "None"}
            return found.pop() if len(found) == 1 else ""
        if isinstance(value, ast.Call):
            if ast.unparse(value.func) in COPIES:
                return self.type(value.args[0])
            name = value.func.attr if isinstance(value.func, ast.Attribute) else getattr(value.func, "id", "")
            answers = self.known.returns.get(name, set())
            return name if name in self.known.classes else (next(iter(answers)) if len(answers) == 1 else "")
        return ""

    def owns(self, value: ast.expr) -> bool:
        """Whether the function made the object, or is a method of its class."""
        return getattr(value, "id", None) in self.made or (
            self.within is not None and self.type(value) == self.within.name
        )


def scopes(scope: Scope, within: ast.ClassDef | None, nodes: list[ast.AST]) -> Iterator[Scope]:
    """The scopes of all functions among these nodes, and of those inside them."""
    for node in nodes:
        if isinstance(node, Function):
            inner = Scope(scope.known, node, scope, within)
            yield inner
            yield from scopes(inner, within, [*inner.own()])
        elif isinstance(node, ast.ClassDef):
            yield from scopes(scope, node, [*node.body])


def foreign(known: Known, tree: ast.Module, records: set[str]) -> Iterator[str]:
    """The assignments to attributes of objects that the function did not make, and whose class is no record.

    A method may assign to other objects of its own class, and an autograd function to its context.
    """
    module = Scope(known, tree, None, None)
    for scope in (module, *scopes(module, None, [*module.own()])):
        for node in scope.own():
            for target in assigned(node):
                if isinstance(target, ast.Attribute) and not scope.owns(target.value):
                    found = scope.type(target.value)
                    if found not in records:
                        yield f"{target.lineno}: {ast.unparse(target)} of {found or 'an unknown type'}"

"""No file but those of `torch_private` names a private part of torch, and each entry there says since when it was seen."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import relprop
from relprop.torch_private import (
    autograd_graph,
    calls,
    compiled,
    custom,
    finding,
    flex,
    modules,
    names,
    recorded,
    saved,
    state,
    weak,
)

ROOT = Path(relprop.__file__).parent
ALLOWED = {
    # named by torch's pages on views and on writing in place
    "_base",
    "_is_view",
    "_version",
    # captum's, for rules of one's own
    "_manipulate_weights",
    # accelerate's, on modules whose weights it moves
    "_hf_hook",
    # the Hugging Face data sets', in the file that says which files hold one
    "_data_files",
    # of every namedtuple
    "_fields",
}
SAID_ALOUD = {"f_back", "f_code", "f_lasti", "f_locals", "metadata", "variable", "make_fx", "eval_frame"}
"""Names that carry no underscore, and are torch's or the interpreter's own affair all the same."""

PYTHONS = {"__code__", "__func__", "__closure__", "__globals__"}
"""What Python documents of a user's function: by it, `relprop.evaluate` knows one whose work is kept."""


def sources() -> list[Path]:
    return [path for path in sorted(ROOT.rglob("*.py")) if "torch_private" not in path.relative_to(ROOT).parts]


def hidden(name: str) -> bool:
    special = name.startswith("__") and name.endswith("__")
    told = {"__code__", "__func__", "__closure__", "__globals__", "__subclasses__"}
    return name in SAID_ALOUD | told or (name.startswith("_") and not special)


def private_names(tree: ast.AST, own: set[str]) -> Iterator[tuple[int, str]]:
    """What a file takes from elsewhere under a private name: attributes, imports, and names given to `getattr`."""
    for node in ast.walk(tree):
        found: list[str] = []
        if isinstance(node, ast.Attribute):
            found = [node.attr]
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            module = getattr(node, "module", None) or ""
            found = [part for name in node.names for part in f"{module}.{name.name}".split(".")]
            found = [name for name in found if name != "__future__" and not module.startswith("importlib.")]
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "hasattr", "setattr", "vars"):
            found = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            found = [str(node.slice.value)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("torch."):
            found = node.value.split(".")
        yield from ((node.lineno, name) for name in found if hidden(name) and name not in own | ALLOWED)


def own_names(trees: list[ast.AST]) -> set[str]:
    """Names that our own code gives to something."""
    own = set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            own.add(node.name)
        elif isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Store):
            own.add(node.id if isinstance(node, ast.Name) else node.attr)
    return own


def test_no_other_file_names_a_private_part_of_torch() -> None:
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sources()}
    own = own_names([*trees.values()])
    wrong = [
        f"{path.relative_to(ROOT)}:{line} {name}"
        for path, tree in trees.items()
        for line, name in private_names(tree, own)
        if not (path.name == "fingerprints.py" and name in PYTHONS)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "line",
    [
        "torch._C._x()",
        "from torch._dynamo import config",
        "import torch._dynamo",
        "from torch.overrides import _get_stack",
        "nn.Module.forward.__code__",
        "frame.f_locals",
        "node.metadata",
        "getattr(model, '_orig_mod', None)",
        "copy.__dict__['_buffers']",
        "NAME = 'torch.distributed._tensor.X'",
        "sys._getframe(1)",
    ],
)
def test_the_search_finds_each_way_to_name_one(line: str) -> None:
    assert list(private_names(ast.parse(line), set()))


@pytest.mark.parametrize(
    "module", [calls, compiled, custom, flex, autograd_graph, modules, names, finding, recorded, saved, state, weak]
)
def test_each_entry_says_since_when_it_is_there(module: ModuleType) -> None:
    """`Seen on 2.9 to 2.14`: what a public entry is for, where it is there, what is done without it."""
    tree = ast.parse(Path(module.__file__ or "").read_text(encoding="utf-8"))
    said: dict[str, str] = {}
    for node, after in zip(tree.body, [*tree.body[1:], ast.Pass()], strict=True):
        if isinstance(node, ast.FunctionDef):
            said[node.name] = ast.get_docstring(node) or ""
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            target: Any = node.targets[0] if isinstance(node, ast.Assign) else node.target
            text = getattr(getattr(after, "value", None), "value", None)
            said[target.id] = text if isinstance(text, str) else ""
    public = {name: text for name, text in said.items() if not name.startswith("_") and name != "Function"}
    helpers = {"part", "lacking", "running", "outside", "NESTED", "code_of", "running_module", "needs_saved_elsewhere"}
    assert public
    assert not [
        n
        for n, text in public.items()
        if n not in helpers and not any(w in text for w in ("een on", "On 2.", "From 2."))
    ]

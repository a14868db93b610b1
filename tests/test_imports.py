"""What `import relprop` brings along, and that the rooms, and the modules in them, depend on each other in one direction."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import relprop
import relprop.evaluation  # brings kinds of results of its own
from relprop.results.protocol import KINDS

ROOT = Path(relprop.__file__).parent

# A room may import those of an earlier line, never its own line's neighbours or a later one: lazily, for types, or at once.
LAYERS = [
    {"errors", "optional", "version"},
    {"torch_private", "signatures"},
    {"numerics", "trees"},
    {"rules"},
    {"composites"},
    {"engine"},
    {"operations"},
    {"rendering", "zoo"},
    {"results"},
    {"attribution"},
    {"captum", "text"},
    {"loading"},
    {"concepts"},
    {"evaluation"},
    {"data"},
    {"web"},
    {"relprop"},
    {"cli"},
]
"""`relprop` is what `import relprop` gives: all of them."""
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def test_importing_relprop_brings_no_plotting_web_or_model_library() -> None:
    unwanted = {
        "PIL",
        "matplotlib",
        "typer",
        "rich",
        "torchvision",
        "transformers",
        "timm",
        "tqdm",
        "IPython",
        "safetensors",
        "gradio",
        "fastapi",
    }
    # What torch itself imports, if anything, is not ours to answer for.
    program = "import sys, torch; before = set(sys.modules); import relprop; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    ours = {name.partition(".")[0] for name in done.stdout.split()}
    assert "relprop" in ours
    assert not ours & unwanted


def test_every_package_has_its_place() -> None:
    found = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert found - {"__init__", "__main__"} <= set(LEVEL)


@pytest.mark.parametrize("package", sorted(LEVEL))
def test_arrows_point_one_way(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {imported}"
        for path in files_of(package)
        for line, imported in imports_of(path)
        if room(imported) != package and LEVEL[room(imported)] >= LEVEL[package]
    ]
    assert not wrong, "\n".join(wrong)


def test_no_circle_between_rooms() -> None:
    graph: dict[str, set[str]] = {}
    for module, imported in modules().items():
        graph.setdefault(room(module), set()).update({room(name) for name in imported} - {room(module)})
    assert set(graph) - {"__main__"} <= set(LEVEL)
    assert not circles(graph)


@pytest.mark.parametrize("package", sorted(LEVEL))
def test_no_circle_inside_of_a_room(package: str) -> None:
    graph = {module: imported for module, imported in modules().items() if room(module) == package}
    assert not circles({module: {name for name in imported if name in graph} for module, imported in graph.items()})


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [{"a", "b", "c"}]
    assert not circles({"a": {"b", "c"}, "b": {"c"}, "c": set()})


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("from relprop.results.views import views", "relprop.results.views"),
        ("def f():\n    from relprop.results import views", "relprop.results.views"),
        ("if TYPE_CHECKING:\n    from relprop.results import Result", "relprop.results"),
        ("import relprop.rendering.svg", "relprop.rendering.svg"),
        ("from relprop import trees", "relprop.trees"),
        ("import relprop", "relprop"),
        ("from relprop import load", "relprop"),
        ("from .views import views", "relprop.results.views"),
        ("importlib.import_module('relprop.cli.app')", "relprop.cli.app"),
        ("import torch", None),
    ],
)
def test_the_search_reads_lazy_and_type_only_imports(line: str, found: str | None) -> None:
    assert [name for _, name in imported_by(ast.parse(line), ROOT / "results" / "show.py")] == [found] * bool(found)


@pytest.mark.parametrize(
    "package",
    ["numerics", "trees", "rules", "composites", "engine", "operations", "attribution", "captum", "text"],
)
def test_the_core_needs_only_torch(package: str) -> None:
    allowed = {"torch", "relprop", "tqdm"} | sys.stdlib_module_names  # tqdm: where progress is asked for
    foreign = {name for path in files_of(package) for _, name in top_level_imports(path)} - allowed
    assert not foreign


def test_nobody_asks_which_kind_a_result_is_of() -> None:
    """What is done with a result, it does itself; only a result's own file names its class in a test of types."""
    kinds = {made.__name__ for made in KINDS.values() if made.__module__.startswith("relprop.")}
    assert kinds == {
        "Relevance", "TextRelevance", "TextResults", "GenerationRelevance", "Summary", "Comparison", "TextComparison",
        "Evaluation", "Sanity",
    }  # fmt: skip
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sorted(ROOT.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("isinstance", "issubclass", "type"))
        or isinstance(node, (ast.Compare, ast.match_case))
        if kinds & {getattr(part, "id", getattr(part, "attr", "")) for part in ast.walk(node)}
        or (isinstance(node, ast.Compare) and kinds_of_files(node))
    ]
    assert not wrong, "\n".join(wrong)


def kinds_of_files(node: ast.Compare) -> bool:
    """Whether something is compared with the name of a kind, as `result.kind == "text"`."""
    asked = any(isinstance(part, ast.Attribute) and part.attr == "kind" for part in ast.walk(node))
    given = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}
    return asked and bool(given & {"relevance", "generation"})


def files_of(package: str) -> Iterator[Path]:
    if package == "relprop":
        yield ROOT / "__init__.py"
        return
    module = ROOT / f"{package}.py"
    if module.is_file():
        yield module
    yield from sorted((ROOT / package).rglob("*.py"))


@functools.cache
def modules() -> dict[str, set[str]]:
    """Each module of ours, and those that it imports, wherever in the file and whatever for."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        name = module_of(path)
        found[name] = {imported for _, imported in imports_of(path)} - {name}
    return found


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """The modules of ours that a file imports, with the line."""
    return imported_by(ast.parse(path.read_text(encoding="utf-8")), path)


def imported_by(tree: ast.AST, path: Path) -> Iterator[tuple[int, str]]:
    own = ("relprop", *path.relative_to(ROOT).with_suffix("").parts)
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(own[: len(own) - node.level]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            # `from relprop import zoo` names a module, `from relprop.zoo import X` a thing in it.
            names = [f"{module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            names = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
        yield from ((node.lineno, named(name)) for name in names if name.split(".")[0] == "relprop")


def named(name: str) -> str:
    """The module that a dotted name is, or is in."""
    while not file_of(name):
        name = name.rpartition(".")[0]
    return name


def file_of(name: str) -> Path | None:
    place = ROOT.joinpath(*name.split(".")[1:])
    candidates = place.with_suffix(".py"), place / "__init__.py"
    return next((path for path in candidates if path.is_file() and path != ROOT.with_suffix(".py")), None)


def module_of(path: Path) -> str:
    parts = ("relprop", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(module: str) -> str:
    """The package of ours that a module lies in."""
    return module.split(".")[1] if "." in module else "relprop"


def circles(graph: Mapping[str, set[str]]) -> list[set[str]]:
    """Sets of modules that all import each other, by way of others or at once."""
    reached = {node: reachable(graph, node) for node in graph}
    found: list[set[str]] = []
    for node in graph:
        circle = {other for other in reached[node] if node in reached.get(other, ())}
        if circle and circle not in found:
            found.append(circle)
    return found


def reachable(graph: Mapping[str, set[str]], start: str) -> set[str]:
    stack, seen = [start], set()
    while stack:
        for node in graph.get(stack.pop(), ()):
            if node not in seen:
                seen.add(node)
                stack.append(node)
    return seen


def top_level_imports(path: Path) -> Iterator[tuple[int, str]]:
    for node in nodes_at_run_time(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.partition(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.lineno, node.module.partition(".")[0]


def nodes_at_run_time(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes, without those that only a type checker sees."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from nodes_at_run_time(node)

"""What `import relprop` brings along, and that the packages depend on each other in one direction."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import relprop

ROOT = Path(relprop.__file__).parent

# A package may import those of an earlier line, never its own line's neighbours or a later one.
LAYERS = [
    {"errors"},
    {"torch_private"},
    {"signatures"},
    {"numerics"},
    {"rules"},
    {"composites"},
    {"engine"},
    {"operations"},
    {"attribution"},
    {"captum", "rendering", "zoo"},
    {"text"},
    {"storage"},
    {"cli"},
]
# The one exception, said once more where it is made: the methods of a result that draw and write it ask the outer
# packages when they are called, and never before.
ASKS_OUTWARDS = {"attribution/outputs.py": {"rendering", "storage"}}
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
        if imported != package
        and LEVEL[imported] >= LEVEL[package]
        and imported not in ASKS_OUTWARDS.get(path.relative_to(ROOT).as_posix(), ())
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", ASKS_OUTWARDS)
def test_the_exception_is_made_inside_of_methods_only(name: str) -> None:
    tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
    (made,) = (node for node in tree.body if isinstance(node, ast.ClassDef))
    methods = [node for node in made.body if isinstance(node, ast.FunctionDef)]
    inside = {id(node) for method in methods for node in ast.walk(method)}
    outward = [
        node
        for node in nodes_at_run_time(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[1:2] in (["rendering"], ["storage"])
    ]
    assert outward and all(id(node) in inside for node in outward)


@pytest.mark.parametrize(
    "package", ["numerics", "rules", "composites", "engine", "operations", "attribution", "captum", "text"]
)
def test_the_core_needs_only_torch(package: str) -> None:
    allowed = {"torch", "relprop", "tqdm"} | sys.stdlib_module_names  # tqdm: where progress is asked for
    foreign = {name for path in files_of(package) for _, name in top_level_imports(path)} - allowed
    assert not foreign


def files_of(package: str) -> Iterator[Path]:
    module = ROOT / f"{package}.py"
    if module.is_file():
        yield module
    yield from sorted((ROOT / package).rglob("*.py"))


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """The packages of ours that a file imports, wherever in the file, with the line."""
    own = ("relprop", *path.relative_to(ROOT).with_suffix("").parts)
    for node in nodes_at_run_time(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(own[: len(own) - node.level]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            # `from relprop import zoo` names a package, `from relprop.zoo import X` a thing in it.
            names = [f"{module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "relprop" and len(parts) > 1 and parts[1] in LEVEL:
                yield node.lineno, parts[1]
            elif parts[0] == "relprop":
                # The whole library: only what lies above it may ask for that.
                yield node.lineno, "attribution"


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

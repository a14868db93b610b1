"""How the code is built: sizes of files and functions, who touches what. What these count may fall, not rise."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import relprop
from assignments import Known, assigned, foreign

ROOT = Path(relprop.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
RULES = {name for name in relprop.rules.__all__ if name != "Layer"} | {"ActivationRule", "Stabilise"}

# Files that share a name, for they share a subject: each part of the house has its own side of it.
SHARED = {
    "__main__": ["cli", "relprop"],
    "batches": ["attribution", "evaluation"],
    "checks": ["attribution", "files"],
    "compiled": ["attribution", "torch_private"],
    "explain": ["attribution", "text"],
    "explaining": ["cli", "data"],
    "graph": ["concepts", "rendering"],
    "layers": ["attribution", "rendering"],
    "pooling": ["operations", "rules"],
    "settings": ["attribution", "web"],
    "side_by_side": ["attribution", "rendering", "results", "text"],
    "sources": ["rendering", "results", "text"],
    "targets": ["attribution", "captum", "text"],
    "texts": ["cli", "files", "results", "web"],
}


def lines_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(path: Path) -> Iterator[ast.FunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            yield node


def body_of(function: ast.FunctionDef) -> int:
    """Lines of code, without the docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_files_have_one_subject() -> None:
    assert not [f"{named(path)}: {n}" for path in FILES if (n := len(lines_of(path))) > 350]


def test_no_two_classes_share_a_name() -> None:
    where: dict[str, list[str]] = {}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                where.setdefault(node.name, []).append(named(path))
    assert not {name: places for name, places in where.items() if len(places) > 1}


def test_files_of_one_name_have_one_subject() -> None:
    """Whoever adds a file under a name that is taken says here that both are about the same thing."""
    where: dict[str, list[str]] = {}
    for path in FILES:
        where.setdefault(path.stem, []).append(path.parent.name)
    shared = {name: sorted(places) for name, places in where.items() if len(places) > 1 and name != "__init__"}
    assert shared == SHARED


@pytest.mark.parametrize("package", ["engine", "operations", "attribution"])
def test_functions_fit_on_a_page(package: str) -> None:
    long = [
        f"{named(path)}: {function.name} has {n} lines"
        for path in FILES
        if path.parent.name == package
        for function in functions(path)
        if (n := body_of(function)) > 50
    ]
    assert not long


def test_only_one_file_names_what_the_engine_writes_on_tensors() -> None:
    marked = {named(path) for path in FILES if re.search(r"[\"'.]_relprop_", path.read_text(encoding="utf-8"))}
    marked |= {named(path) for path in FILES if 'f"_relprop_' in path.read_text(encoding="utf-8")}
    assert marked == {"engine/tensor_attributes.py"}


def test_handlers_ask_rules_by_their_protocol() -> None:
    """Of what class a rule is, nobody asks but the rules, and the doors where users may hand over something else."""
    asked = [
        f"{named(path)}:{node.lineno}"
        for path in FILES
        if path.parent.name not in ("rules", "captum")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", "") == "isinstance"
        and RULES & {part.id for part in ast.walk(node.args[1]) if isinstance(part, ast.Name)}
    ]
    inner = [place for place in asked if place.startswith(("engine", "operations"))]
    assert not inner, inner
    assert len(asked) <= 3, asked


def test_handlers_do_not_reach_into_the_run() -> None:
    """A handler speaks to its call. What outlives the call, a layer or a scan, holds the run's sites itself."""
    reaching = [
        f"{named(path)}:{number}: {line.strip()}"
        for path in FILES
        if path.parent.name == "operations"
        for number, line in enumerate(lines_of(path), 1)
        if re.search(r"\bcall\.run\.", line)
    ]
    assert not reaching


def test_what_several_tests_need_is_written_once() -> None:
    """A helper of four lines or more that two test files define alike belongs into `helpers.py` or `networks.py`."""
    where: dict[str, list[str]] = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and (node.end_lineno or 0) - node.lineno >= 4:
                body = node.body[1:] if ast.get_docstring(node) is not None else node.body
                where.setdefault("\n".join(map(ast.unparse, body)), []).append(f"{path.name}: {node.name}")
    assert not [places for places in where.values() if len(places) > 1]


RECORDS = {"Note", "_Calls"}
"""What others fill in: notes on tensors, which are the engine's memory, and what a thread's call has opened."""
LIBRARIES = {
    "data/exports/hdf5.py: file.attrs", "data/exports/virelay.py: embedding['spectral'].attrs",
    "data/exports/virelay.py: embedding['view'].attrs", "data/exports/virelay.py: clusters['spray'].attrs",
    "data/ray_engine.py: context.enable_progress_bars", "evaluation/left_unchanged.py: tensor.grad",
    "loading/hub.py: transformers.dynamic_module_utils.TIME_OUT_REMOTE_CODE", "loading/models.py: sys.stdin",
    "loading/network.py: tokenizer.pad_token", "torch_private/modules.py: copy.__dict__",
    "torch_private/recorded.py: torch.compiler._is_compiling_flag", "torch_private/saved.py: saved.tensor",
    "web/gradio_here.py: os.environ", "web/server.py: blocks.has_launched", "web/server.py: blocks.state_session_capacity", "web/server.py: self._server.should_exit",
}  # fmt: skip
"""Objects of Python, torch and other libraries that have no other way to be told something."""
KNOWN = Known.of(FILES)


def test_nobody_sets_the_attributes_of_another_object() -> None:
    found = [
        (named(path), *place.split(": ", 1))
        for path in FILES
        for place in foreign(KNOWN, ast.parse(path.read_text(encoding="utf-8")), RECORDS)
    ]
    places = {f"{path}: {said.split(' of ')[0]}": f"{path}:{line}: {said}" for path, line, said in found}
    assert not (wrong := [said for place, said in places.items() if place not in LIBRARIES]), "\n".join(wrong)
    assert places.keys() >= LIBRARIES, "the list names what is gone"


@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        ("def f(call: Call):\n    call.place = None", "2: call.place of Call"),
        ("def f(call):\n    call.place = None", "2: call.place of an unknown type"),
        ("def f(t):\n    note, x = note_of(t), t\n    x.note, note.chain = note, None", "3: x.note of an unknown type"),
        ("def f(run):\n    made = run.sites\n    made.nz = True", "3: made.nz of an unknown type"),
        ("def f(call: Call):\n    call.live[0] = None", "2: call.live of Call"),
        ("def f(note: Note | None):\n    note.version = 0", ""),
        ("def f(run, t):\n    noted(run, t).move = None", ""),
        ("def f():\n    found = Outcome([])\n    found.kept = 1", ""),
        ("class A:\n    def twin(self):\n        other = copy.copy(self)\n        other.x = 1", ""),
        ("class A(torch.autograd.Function):\n    def backward(ctx: Any, g):\n        ctx.x = 1", ""),
        ("class A:\n    def backward(ctx: Any, g):\n        ctx.x = 1", "3: ctx.x of Any"),
    ],
)
def test_whose_attribute_it_is_shows_in_types(code: str, wrong: str) -> None:
    assert list(foreign(KNOWN, ast.parse(code), RECORDS)) == ([wrong] if wrong else [])


def test_types_are_not_told_to_overlook_an_attribute() -> None:
    assert not [named(path) for path in FILES if "ignore[attr-defined" in path.read_text(encoding="utf-8")]


def test_a_class_of_the_engine_holds_ten_things_at_most() -> None:
    large = [
        f"{named(path)}: {node.name} holds {len(held)}"
        for path in FILES
        if path.parent.name == "engine"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and len(held := attributes_of(node)) > 10
    ]
    assert not large, large


def attributes_of(node: ast.ClassDef) -> set[str]:
    """What a class's own methods assign on `self`, and its annotated fields."""
    fields = {
        part.target.id for part in node.body if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
    }
    own = {
        target.attr
        for part in ast.walk(node)
        for target in assigned(part)
        if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id == "self"
    }
    return fields | own

"""`python -m benchmarks.mutation`: how many small faults, put into rules, numerics and operations, do the tests find?

    python -m benchmarks.mutation                     # 300 mutants, drawn by seed 0; an hour on one core
    python -m benchmarks.mutation --count 40 --only rules/proportional.py
    python -m benchmarks.mutation --json mutants.json # each mutant and what became of it

A mutant is the library with one operator, comparison, constant, condition or statement changed. First the tests run once
under a tracer that notes which test runs which line; then each mutant is tried on tests that run its line, until one
fails. Survivors are printed: a test is missing, or the change makes no difference.
"""

from __future__ import annotations

import argparse
import ast
import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "relprop"
WHAT = ("rules/*.py", "numerics.py", "operations/*.py")
LEFT_OUT = (
    "cli",
    "captum",
    "gallery",
    "docs",
    "readme",
    "examples",
    "coverage",
    "peers",
    "images",
    "drawings",
    "colours",
)
LEFT_OUT += (
    "views",
    "results",
    "storage",
    "show",
    "zoo",
    "imports",
    "rendering",
    "text",
    "generation",
    "compile",
    "programs",
    "faults",
)
LEFT_OUT += (
    "hostile",
    "large_batches",
    "doors",
    "leaks",
    "bad_input",
    "torch_private",
    "damaged",
    "forward_bits",
    "state",
)
LEFT_OUT += ("interop", "flex_attention", "checkpoint", "transformers", "dtypes", "custom", "inner_gradients")
"""Tests of what lies above the operations, by a part of the file's name, and the slowest."""


class Mutant(NamedTuple):
    file: str
    line: int
    what: str
    source: str


# ------------------------------------------------------------------------------------------------ mutants

_OPERATORS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult}
_OPERATORS |= {ast.FloorDiv: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd}
_COMPARISONS = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
}
_COMPARISONS |= {ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In}


def changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """What may stand in a node's place."""
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
            yield "never", new.orelse
        case ast.If():
            for value in (True, False):
                new = copy.deepcopy(node)
                new.test = ast.Constant(value)  # type: ignore[attr-defined]
                yield "always" if value else "never", new
        case ast.Expr(value=ast.Call()) | ast.AugAssign():
            yield "statement dropped", ast.Pass()


def mutants(file: Path) -> Iterator[Mutant]:
    """Every mutant of a file: not of annotations, texts of errors, assertions, imports or tables."""
    tree = ast.parse(file.read_text())
    for node, field, place in list(_places(tree)):
        child = getattr(node, field) if place is None else getattr(node, field)[place]
        for what, other in changes(child):
            _put(node, field, place, other)
            before, after = (ast.unparse(ast.fix_missing_locations(n)).splitlines()[0] for n in (child, other))
            text = ast.unparse(ast.fix_missing_locations(tree))
            _put(node, field, place, child)
            yield Mutant(str(file.relative_to(SOURCE)), child.lineno, f"{what}: {before} -> {after}", text)


def _put(node: ast.AST, field: str, place: int | None, value: ast.AST) -> None:
    if place is None:
        setattr(node, field, value)
    else:
        getattr(node, field)[place] = value


def _places(node: ast.AST, inside: bool = False) -> Iterator[tuple[ast.AST, str, int | None]]:
    """Where an expression or a statement of a function's body stands."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "bases", "keywords") and not isinstance(node, ast.Call):
            continue
        for place, child in enumerate(value) if isinstance(value, list) else ((None, value),):
            if not isinstance(child, ast.AST) or isinstance(child, (ast.Raise, ast.Assert, ast.Import, ast.ImportFrom)):
                continue
            if inside and isinstance(child, (ast.expr, ast.stmt)):
                yield node, field, place
            yield from _places(child, inside or isinstance(child, ast.FunctionDef))


# -------------------------------------------------------------------------------- which test runs what

TRACER = """
import json, os, sys, time
from pathlib import Path
home, out = os.environ["MUTATION_HOME"], os.environ["MUTATION_OUT"]
ran, took = {}, {}
def pytest_collection_modifyitems(items):  # of a file with very many tests, some from all over it
    files = {}
    for item in items: files.setdefault(item.path, []).append(item)
    items[:] = [item for some in files.values() for item in some[:: 1 + len(some) // 200]]
def pytest_runtest_call(item):
    lines = ran.setdefault(item.nodeid, set())
    def trace(frame, event, _):
        name = frame.f_code.co_filename
        if not name.startswith(home): return None
        short = name[len(home) + 1:]
        if not short.startswith(("rules", "operations", "numerics")): return None
        def line(frame, event, _):
            lines.add((short, frame.f_lineno)); return line
        lines.add((short, frame.f_lineno)); return line
    took[item.nodeid] = -time.perf_counter(); sys.settrace(trace)
def pytest_runtest_teardown(item):
    sys.settrace(None)
    if item.nodeid in took: took[item.nodeid] += time.perf_counter()
def pytest_runtest_logreport(report):
    if report.failed: ran.pop(report.nodeid, None)
def pytest_sessionfinish(session):
    Path(out).write_text(json.dumps({k: [took[k], sorted(v)] for k, v in ran.items()}))
"""


def coverage(cache: Path) -> dict[tuple[str, int], list[str]]:
    """The tests that run each line, the fastest first."""
    if not cache.exists():
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "tracing_lines.py").write_text(TRACER)
            paths = os.pathsep.join([folder, str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
            env = {
                **os.environ,
                "PYTHONPATH": paths,
                "MUTATION_HOME": str(SOURCE),
                "MUTATION_OUT": str(cache.resolve()),
            }
            files = [
                str(f) for f in sorted((ROOT / "tests").glob("test_*.py")) if not any(p in f.name for p in LEFT_OUT)
            ]
            command = [sys.executable, "-m", "pytest", "-q", "-p", "tracing_lines", "-p", "no:cacheprovider", *files]
            subprocess.run(command, cwd=ROOT, env=env, check=False)
    found: dict[tuple[str, int], list[tuple[float, str]]] = defaultdict(list)
    for test, (seconds, lines) in json.loads(cache.read_text()).items():
        for file, line in lines:
            found[file, line].append((seconds, test))
    return {place: [test for _, test in sorted(tests)] for place, tests in found.items()}


def chosen(tests: list[str], most: int, random: Random) -> list[str]:
    """So many of the tests, from as many files as there are: the fastest of each first, then any."""
    files: dict[str, list[str]] = defaultdict(list)
    for test in tests:
        files[test.split("::")[0]].append(test)
    for some in files.values():
        some[1:] = random.sample(some[1:], len(some) - 1)
    picked: list[str] = []
    for n in range(max(map(len, files.values()), default=0)):
        picked += [some[n] for some in files.values() if n < len(some)]
    return picked[:most]


# --------------------------------------------------------------------------------------------- the trial


def survives(mutant: Mutant, tests: list[str], home: Path, limit: float) -> bool:
    """Whether no test fails on it. A process of its own, forked from this one, which has imported torch already."""
    target = home / "relprop" / mutant.file
    original = target.read_text()
    target.write_text(mutant.source)
    child = os.fork()
    if child == 0:
        import pytest

        os.setsid()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        sys.dont_write_bytecode = True
        sys.path[:0] = [str(home), str(ROOT / "tests"), str(ROOT)]
        os.chdir(ROOT)
        os._exit(int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests])))
    end = time.monotonic() + limit
    status = None
    while status is None:
        done, raw = os.waitpid(child, os.WNOHANG)
        if done:
            status = os.waitstatus_to_exitcode(raw)
        elif time.monotonic() > end:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            status = 1
        else:
            time.sleep(0.02)
    target.write_text(original)
    return status == 0


def main() -> None:
    options = arguments()
    import pytest  # noqa: F401  # what every trial needs, imported once
    import torch

    torch.set_num_threads(1)
    files = [f for pattern in WHAT for f in sorted(SOURCE.glob(pattern)) if not options.only or options.only in str(f)]
    everything = [mutant for file in files for mutant in mutants(file)]
    drawn = Random(options.seed).sample(everything, min(options.count, len(everything)))
    lines = coverage(Path(options.coverage))
    killed, outcome = 0, []
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        shutil.copytree(SOURCE, home / "relprop", ignore=shutil.ignore_patterns("__pycache__"))
        for number, mutant in enumerate(drawn, 1):
            tests = chosen(lines.get((mutant.file, mutant.line), []), options.tests, Random(number))
            survived = not tests or survives(mutant, tests, home, options.limit)
            killed += not survived
            outcome.append({**mutant._asdict(), "source": None, "tests": len(tests), "survived": survived})
            if survived:
                print(f"{mutant.file}:{mutant.line}: {mutant.what}{'' if tests else '  (no test runs it)'}", flush=True)
            if number % 25 == 0:
                print(f"-- {killed} of {number} found", flush=True)
    reached = sum(one["tests"] > 0 for one in outcome)
    print(
        f"{killed} of {len(drawn)} mutants found, of {len(everything)} possible; {reached} on lines that a traced test runs"
    )
    if options.json:
        Path(options.json).write_text(json.dumps(outcome, indent=1))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="a part of the file's path")
    parser.add_argument("--tests", type=int, default=100, help="how many tests a mutant is tried on at most")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds after which a mutant counts as found")
    parser.add_argument("--coverage", default="mutation-coverage.json", help="where to keep which test runs which line")
    parser.add_argument("--json", help="where to write what became of each mutant")
    return parser.parse_args()


if __name__ == "__main__":
    main()

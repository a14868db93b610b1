"""`python -m benchmarks.mutation`: how many small faults, put into rules, numerics and operations, do the tests find?

    python -m benchmarks.mutation                     # 300 mutants, drawn by seed 0
    python -m benchmarks.mutation --count 40 --only rules/proportional.py
    python -m benchmarks.mutation --json mutants.json # each mutant and what became of it
    python -m benchmarks.mutation --again mutants.json --json after.json   # those that survived, with the tests of today

`benchmarks/mutants.py` says what is changed, and what is left out. First the tests run once under `coverage`, which
notes which test runs which line, and how long each takes (some twenty minutes; kept in `--coverage`). Then each mutant
is tried on the tests that run the changed statement, until one fails: first those that run little else and the quickest
of each file, then all up to `--seconds` of their time. A mutant that hangs counts as found. At the end every test that
found a mutant runs on the library as it is: if it fails there too, it found nothing.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from compileall import compile_dir
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from benchmarks.mutants import Mutant, mutants, text_of
from benchmarks.swapped import LOADED, Client

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "relprop"
WHAT = ("rules/*.py", "numerics.py", "operations/*.py")
LEFT_OUT = [
    "atlas",
    "cli*",
    "colour_maps",
    "colours",
    "compare_text",
    "coverage*",
    "damaged_files",
    "data*",
    "docs",
    "drawings",
    "evaluation*",
    "examples",
    "faithfulness",
    "faults",
    "gallery",
    "heads_written",
    "hostile",
    "ids_written",
    "images",
    "imports",
    "index",
    "large_batches",
    "leaks",
    "members",
    "messages",
    "odd_results",
    "pages",
    "peers*",
    "programs",
    "prototypes",
    "reading",
    "readme",
    "saved_drawings",
    "show",
    "similarity",
    "spray",
    "storage",
    "structure",
    "survey",
    "text_rendering",
    "torch_private",
    "web*",
    "zoo",
]
"""Tests of what lies above the operations, by the names of their files; those that trace by themselves; the slowest."""


# -------------------------------------------------------------------------------- which test runs what

TRACER = """
import json, os, sys, time
import coverage, pytest
home, out = os.environ["MUTATION_HOME"], os.environ["MUTATION_OUT"]
what = [f"{home}/{pattern}" for pattern in os.environ["MUTATION_WHAT"].split()]
watch = coverage.Coverage(data_file=None, include=what, config_file=False)
watch.start()
took, passed = {}, {}
@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item):
    watch.switch_context(item.nodeid)
    began = time.perf_counter()
    yield
    took[item.nodeid] = time.perf_counter() - began
    watch.switch_context("")
def pytest_runtest_logreport(report):
    if report.when == "call": passed[report.nodeid] = report.passed
def pytest_sessionfinish(session):
    watch.stop()
    data, lines = watch.get_data(), {}
    for file in data.measured_files():
        for line, tests in data.contexts_by_lineno(file).items():
            lines[f"{file[len(home) + 1:]}:{line}"] = tests
    imported = [name for name in sys.modules if not name.startswith(("relprop", "test", "_pytest", "__main__", "coverage"))]
    names = [n for n in took if passed.get(n)]
    number = {name: n for n, name in enumerate(names)}
    lines = {line: [number[t] if t else -1 for t in tests if t in number or not t] for line, tests in lines.items()}
    with open(out, "w") as file:
        json.dump({"tests": names, "seconds": [took[n] for n in names], "lines": lines, "imported": imported}, file)
"""


def record(out: Path) -> None:
    """Runs the tests under `coverage`."""
    files = [f for f in sorted((ROOT / "tests").glob("test_*.py"))]
    kept = [str(f) for f in files if not any(Path(f.stem[5:]).match(pattern) for pattern in LEFT_OUT)]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tracing_lines.py").write_text(TRACER)
        paths = os.pathsep.join([folder, str(ROOT / "src"), str(ROOT / "tests"), str(ROOT)])
        env = {**os.environ, "PYTHONPATH": paths, "MUTATION_HOME": str(SOURCE), "MUTATION_OUT": str(out.resolve())}
        env["MUTATION_WHAT"] = " ".join(WHAT)
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-m",
            "not slow",
            "-p",
            "tracing_lines",
            "-p",
            "no:cacheprovider",
            *kept,
        ]
        subprocess.run(command, cwd=ROOT, env=env, check=False)


class Record:
    """Which test runs which line, and how long it takes."""

    def __init__(self, files: Iterable[Path]) -> None:
        self.seconds: dict[str, float] = {}
        self.lines: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
        self.imported: list[str] = []
        self.at_import: dict[str, set[int]] = defaultdict(set)
        for file in files:
            read = json.loads(file.read_text())
            names = read["tests"]
            self.seconds |= dict(zip(names, read["seconds"], strict=True))
            self.imported += read["imported"]
            for place, tests in read["lines"].items():
                name, line = place.rsplit(":", 1)
                self.lines[name][int(line)] |= {names[n] for n in tests if n >= 0}
                if -1 in tests:
                    self.at_import[name].add(int(line))
        self.size: dict[str, int] = defaultdict(int)  # how many lines a test runs
        for lines in self.lines.values():
            for tests in lines.values():
                for test in tests:
                    self.size[test] += 1

    def imports_anew(self, mutant: Mutant) -> bool:
        """Whether the statement runs while the library is imported and tests are collected."""
        return not self.at_import[mutant.file].isdisjoint(range(mutant.span[0], mutant.span[1] + 1))

    def tests(self, mutant: Mutant) -> list[str]:
        """Those that run the statement; if it runs on import alone, those that run anything of the file. Best first."""
        lines = self.lines[mutant.file]
        found = lines[mutant.line] or set[str]().union(*(lines[n] for n in range(mutant.span[0], mutant.span[1] + 1)))
        if not found and mutant.line in lines:
            found = set[str]().union(*lines.values())
        small = sorted(found, key=lambda test: (self.size[test], self.seconds[test], test))
        quick = sorted(found, key=lambda test: (self.seconds[test], test))
        return list(dict.fromkeys(t for pair in zip(_by_turns(small), _by_turns(quick), strict=True) for t in pair))


def _by_turns(tests: list[str]) -> list[str]:
    """One of each file, then the next of each."""
    files: dict[str, list[str]] = defaultdict(list)
    for test in tests:
        files[test.split("::")[0]].append(test)
    longest = max(map(len, files.values()), default=0)
    return [some[n] for n in range(longest) for some in files.values() if n < len(some)]


def _within(tests: list[str], seconds: float, seconds_of: dict[str, float]) -> list[str]:
    """The first of them that fit into so much time together; one at least."""
    kept: list[str] = []
    for test in tests:
        if seconds_of[test] <= seconds:
            seconds -= seconds_of[test]
            kept.append(test)
    return kept or tests[:1]


# --------------------------------------------------------------------------------------------- the trial


class Only:
    """A plugin of pytest that runs these tests alone, in this order, and says which failed first."""

    def __init__(self, tests: list[str], out: Path) -> None:
        self.place = {test: n for n, test in enumerate(tests)}
        self.out = out

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = sorted((i for i in items if i.nodeid in self.place), key=lambda i: self.place[i.nodeid])

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed and not self.out.read_text():
            self.out.write_text(report.nodeid)


class Outcome(NamedTuple):
    found: bool
    by: str
    """The test that failed; empty if the library could not be imported, or the time was over."""


def trial(tests: list[str], home: Path, limit: float) -> Outcome:
    """Runs tests on the library in `home`, in a process forked from this one, which has imported torch already."""
    out = home / "failed"
    out.write_text("")
    child = os.fork()
    if child == 0:
        status = 3
        try:
            status = _run(tests, home, out)
        finally:
            os._exit(status)  # whatever happened: the rest of this program is the parent's
    end = time.monotonic() + limit
    status: int | None = None
    while status is None:
        done, raw = os.waitpid(child, os.WNOHANG)
        if done:
            status = os.waitstatus_to_exitcode(raw)
        elif time.monotonic() > end:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            status = 1
        else:
            time.sleep(0.01)
    return Outcome(status not in (0, 5), out.read_text())  # 5: no test was there


def _run(tests: list[str], home: Path, out: Path) -> int:
    import pytest

    os.setsid()
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    sys.dont_write_bytecode = True
    sys.path[:0] = [str(home), str(ROOT / "tests"), str(ROOT)]
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path[:3])
    os.chdir(ROOT)
    files = list(dict.fromkeys(test.split("::")[0] for test in tests))
    options = ["-x", "-q", "-p", "no:cacheprovider", "--no-header", "--tb=no", *LOADED]
    return int(pytest.main([*options, *files], plugins=[Only(tests, out)]))


class Copy:
    """A copy of the library, in which one file at a time is changed."""

    def __init__(self, folder: str) -> None:
        self.home = Path(folder)
        shutil.copytree(SOURCE, self.home / "relprop", ignore=shutil.ignore_patterns("__pycache__"))
        compile_dir(str(self.home), quiet=2)

    def changed(self, file: str, text: str, run: Callable[[], Outcome]) -> Outcome:
        """What comes of a run with another text in place of a file's."""
        target = self.home / "relprop" / file
        original, times = target.read_bytes(), target.stat()
        target.write_text(text)
        try:
            return run()
        finally:
            target.write_bytes(original)
            os.utime(target, ns=(times.st_atime_ns, times.st_mtime_ns))


def stages(tests: list[str], record: Record, seconds: float) -> Iterator[list[str]]:
    """First some seconds' worth of tests, then the others up to `seconds`."""
    first = _within(tests[:60], 4.0, record.seconds)
    yield first
    chosen = set(first)
    if rest := [test for test in tests if test not in chosen]:
        yield _within(rest, seconds, record.seconds)


class Trials:
    """Tries texts of files: by the server, which changes functions, else in a process that imports the library anew."""

    def __init__(self, record: Record, copy: Copy, seconds: float) -> None:
        self.record, self.copy, self.seconds = record, copy, seconds
        self.server = Client(copy.home, ROOT, sorted({test.split("::")[0] for test in record.seconds}))
        self.checked: dict[str, bool] = {}
        quick = min(record.seconds, key=record.seconds.__getitem__)
        if trial([quick], copy.home, 300).found or self.fails_anyway(quick):
            raise RuntimeError(f"{quick} fails on the library as it is")

    def outcome(self, mutant: Mutant, text: str, tests: list[str]) -> Outcome:
        """What becomes of a mutant."""
        anew = self.record.imports_anew(mutant)
        for some in stages(tests, self.record, self.seconds):
            limit = 60 + 10 * sum(self.record.seconds[test] for test in some)
            answer = {} if anew else self.server.ask(mutant.file, text, some, limit)
            anew = anew or answer["refused"]
            if anew:
                outcome = self.copy.changed(
                    mutant.file, text, lambda some=some, limit=limit: trial(some, self.copy.home, limit)
                )  # type: ignore[misc]
            else:
                outcome = Outcome(answer["found"], answer["by"])
            if outcome.found:
                return outcome
        return Outcome(False, "")

    def fails_anyway(self, test: str) -> bool:
        """Whether a test fails on the library as it is."""
        if test not in self.checked:
            self.checked[test] = self.server.ask("", None, [test], 60 + 10 * self.record.seconds[test])["found"]
        return self.checked[test]


def main() -> None:
    options = arguments()
    files = [f for pattern in WHAT for f in sorted(SOURCE.glob(pattern)) if not options.only or options.only in str(f)]
    everything = [mutant for file in files for mutant in mutants(file, SOURCE)]
    if options.again:
        survived = {one["key"] for one in json.loads(Path(options.again).read_text()) if not one["found"]}
        drawn = [mutant for mutant in everything if mutant.key in survived]
    else:
        drawn = Random(options.seed).sample(everything, len(everything))[options.skip :][: options.count]
    if not Path(options.coverage[0]).exists():
        record(Path(options.coverage[0]))
    if not drawn:
        return
    runs = Record(map(Path, options.coverage))
    _import_what_tests_import(runs.imported)
    outcomes: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        trials = Trials(runs, Copy(folder), options.seconds)
        for mutant in drawn:
            began, text = time.monotonic(), text_of(mutant, SOURCE)
            if text is None:
                continue
            outcome, tests = Outcome(False, ""), runs.tests(mutant)
            while tests:
                outcome = trials.outcome(mutant, text, tests)
                if not outcome.by or not trials.fails_anyway(outcome.by):
                    break
                tests = [test for test in tests if test != outcome.by]
            one = {**mutant._asdict(), "key": mutant.key, **outcome._asdict(), "tests": len(tests)}
            one["seconds"] = round(time.monotonic() - began, 1)
            outcomes.append(one)
            _say(outcomes)
            if options.json:
                Path(options.json).write_text(json.dumps(outcomes, indent=1))
        trials.server.close()
    found, reached = sum(one["found"] for one in outcomes), sum(one["tests"] > 0 for one in outcomes)
    print(f"{found} of {len(outcomes)} mutants found, of {len(everything)}; {reached} stand where a recorded test goes")


def _say(outcomes: list[dict[str, Any]]) -> None:
    one = outcomes[-1]
    if not one["found"]:
        none = "" if one["tests"] else "  (no test runs it)"
        print(f"{one['file']}:{one['line']}: {one['what']}{none}", flush=True)
    if len(outcomes) % 10 == 0:
        seconds = sum(one["seconds"] for one in outcomes)
        found = sum(one["found"] for one in outcomes)
        print(f"-- {found} of {len(outcomes)} found, {seconds / len(outcomes):.1f} s each", flush=True)


def _import_what_tests_import(names: list[str]) -> None:
    """Once for all the processes that are forked."""
    import pytest  # noqa: F401
    import torch

    torch.set_num_threads(1)
    for name in names:
        if name.split(".")[0] not in ("torch", "numpy", "sympy"):
            continue
        try:
            importlib.import_module(name)
        except Exception:  # some modules are there only within another
            continue


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--skip", type=int, default=0, help="leave out so many of those drawn: a sample goes on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="a part of the file's path")
    parser.add_argument("--seconds", type=float, default=60.0, help="tests for so long, at most, for one mutant")
    parser.add_argument("--coverage", nargs="+", default=["mutation-coverage.json"], help="which test runs which line")
    parser.add_argument("--again", help="the survivors of a run's --json")
    parser.add_argument("--json", help="where to write what became of each mutant")
    return parser.parse_args()


if __name__ == "__main__":
    main()

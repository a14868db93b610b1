"""Puts a changed function into a library that is imported already, so that no mutant has to import anything anew.

A server imports the library and collects the tests once, as `pytest` does. For each mutant it forks, gives the function
its new code and runs tests until one fails. What a change of a function cannot express, as that of a class attribute, a
default, or a function that ran while the library was imported, is refused: then the library is imported anew.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from inspect import CO_OPTIMIZED
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

LOADED = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
"""Options of pytest in a process that has imported libraries before."""

Key = tuple[str, int, bytes]


def codes(code: CodeType) -> list[CodeType]:
    """The code that is directly inside of another."""
    return [c for c in code.co_consts if isinstance(c, CodeType)]


def alone(code: CodeType) -> tuple[Any, ...]:
    """What a code object is, without what is inside of it and without lines."""
    consts = [(type(c), repr(c)) for c in code.co_consts if not isinstance(c, CodeType)]
    return code.co_code, code.co_names, code.co_varnames, code.co_freevars, consts, len(codes(code))


def key(code: CodeType) -> Key:
    return code.co_qualname, code.co_firstlineno, code.co_code


def changed(old: CodeType, new: CodeType, into: dict[Key, CodeType]) -> tuple[bool, bool]:
    """Notes the functions that differ, with those that hold them: whether any does, and whether that says it all."""
    pairs = list(zip(codes(old), codes(new), strict=False))
    inside = [changed(a, b, into) for a, b in pairs]
    mine, differs = alone(old) != alone(new), any(d for d, _ in inside)
    function = bool(old.co_flags & CO_OPTIMIZED)
    whole = all(w for _, w in inside) and (function or not mine) and old.co_freevars == new.co_freevars
    if function and (mine or differs):
        whole = whole and key(old) not in into
        into[key(old)] = new
    return mine or differs, whole


def swap(file: Path, text: str, functions: list[FunctionType]) -> bool:
    """Gives the functions of a file the code of another text; whether that was possible."""
    new: dict[Key, CodeType] = {}
    old, other = (compile(source, str(file), "exec") for source in (file.read_text(), text))
    differs, whole = changed(old, other, new)
    found = [function for function in functions if key(function.__code__) in new]
    if not differs or not whole or not found:
        return False
    for function in found:
        function.__code__ = new[key(function.__code__)]
    return True


class Server:
    """A plugin of pytest: instead of running the tests that it collected, it runs those that it is told to, in forks."""

    def __init__(self, jobs: int, answers: int, home: Path) -> None:
        self.jobs, self.answers, self.home = os.fdopen(jobs), os.fdopen(answers, "w", buffering=1), home
        self.failed = ""

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid

    def pytest_runtestloop(self, session: Any) -> bool:
        items = {item.nodeid: item for item in session.items}
        gc.collect()
        functions: dict[str, list[FunctionType]] = {}
        for one in gc.get_objects():
            if type(one) is FunctionType:  # some objects warn when they are asked for their class
                functions.setdefault(one.__code__.co_filename, []).append(one)
        gc.freeze()
        self.answers.write(json.dumps({"collected": len(items)}) + "\n")
        for line in self.jobs:
            job = json.loads(line)
            file = self.home / "relprop" / job["file"]
            tests = [items[name] for name in job["tests"] if name in items]
            run = partial(self._run, file, job["text"], functions.get(str(file), []), tests)
            self.answers.write(json.dumps(self._forked(run, job["limit"])) + "\n")
        return True

    def _run(self, file: Path, text: str | None, functions: list[FunctionType], tests: list[Any]) -> str:
        """The test that failed; "" if none did; "?" if the change was refused."""
        if text is not None and not swap(file, text, functions):
            return "?"
        for n, item in enumerate(tests):
            following = tests[n + 1] if n + 1 < len(tests) else None
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if self.failed:
                break
        return self.failed

    def _forked(self, run: Callable[[], str], limit: float) -> dict[str, Any]:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.setsid()
            found = "!"  # the process ended
            try:
                os.close(reading)
                found = run()
            finally:
                os.write(writing, b"=" + found.encode())
                os._exit(0)
        os.close(writing)
        end = time.monotonic() + limit
        late = False
        while not os.waitpid(child, os.WNOHANG)[0]:
            if time.monotonic() > end:
                late = True
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                break
            time.sleep(0.005)
        with os.fdopen(reading) as answer:
            said = answer.read()
        found = said[1:] if said and not late else "!"
        return {
            "found": found not in ("", "?"),
            "by": found if found not in ("", "?", "!") else "",
            "refused": found == "?",
        }


class Client:
    """Starts a server and asks it."""

    def __init__(self, home: Path, root: Path, files: list[str]) -> None:
        jobs, self._jobs = os.pipe()
        self._answers, answers = os.pipe()
        self.child = os.fork()
        if self.child == 0:
            try:
                os.close(self._jobs)
                os.close(self._answers)
                serve(home, root, files, jobs, answers)
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
            finally:
                os._exit(0)
        os.close(jobs)
        os.close(answers)
        self.jobs, self.answers = os.fdopen(self._jobs, "w", buffering=1), os.fdopen(self._answers)
        self.collected = json.loads(self.answers.readline() or '{"collected": 0}')["collected"]
        if not self.collected:
            raise RuntimeError("no test was collected: run pytest on the tests to see why")

    def ask(self, file: str, text: str | None, tests: list[str], limit: float) -> dict[str, Any]:
        self.jobs.write(json.dumps({"file": file, "text": text, "tests": tests, "limit": limit}) + "\n")
        return json.loads(self.answers.readline())

    def close(self) -> None:
        self.jobs.close()
        self.answers.close()
        os.waitpid(self.child, 0)


def serve(home: Path, root: Path, files: list[str], jobs: int, answers: int) -> None:
    """Ends when the other side closes."""
    import pytest

    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.dont_write_bytecode = True
    sys.path[:0] = [str(home), str(root / "tests"), str(root)]
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path[:3])
    os.chdir(root)
    options = ["-q", "-p", "no:cacheprovider", "--no-header", "--tb=no", "--capture=no", *LOADED]
    pytest.main([*options, *files], plugins=[Server(jobs, answers, home)])

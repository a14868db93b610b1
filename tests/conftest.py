"""Every test starts from the same settings and must leave them as they were."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator

import pytest
import torch

from relprop.engine.registry import TABLE

torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A browser's driver runs on greenlets: after it, tests that trace lines take minutes in the same process."""
    items.sort(key=lambda item: item.path.name.startswith("test_web"))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs a test of the page once more, on a page of its own, where it waited for something in vain.

    Gradio's client loses an answer now and then, if two are asked for within milliseconds, as a test does and no person.
    What is really missing is missing twice.
    """
    browser = pyfuncitem.funcargs.get("browser")
    if browser is None:
        return None
    given = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    try:
        pyfuncitem.obj(**given)
    except Exception as error:
        if type(error).__name__ != "TimeoutError" or not type(error).__module__.startswith("playwright"):
            raise
        print(f"{pyfuncitem.nodeid} again, after {error}")
        for context in browser.contexts:
            context.close()
        pyfuncitem.obj(**given)
    return True


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    """One seed for all; and nothing a test does may change how torch behaves afterwards."""
    torch.manual_seed(0)
    before = torch.get_default_dtype(), torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    yield
    after = torch.get_default_dtype(), torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    assert after == before


@pytest.fixture(scope="module", autouse=True)
def swept(request: pytest.FixtureRequest) -> Iterator[None]:
    """Sockets and loops that Gradio and a browser's driver left open end with their file, not in a test that would hear of it."""
    yield
    if request.module.__name__.startswith("test_web"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gc.collect()


@pytest.fixture
def table() -> Iterator[None]:
    """What a test registers ends with it."""
    before = dict(TABLE)
    yield
    TABLE.clear()
    TABLE.update(before)

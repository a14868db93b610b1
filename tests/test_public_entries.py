"""Each entry leaves nothing behind, and nothing changed after a fault. One that is new and has no call here fails."""

from __future__ import annotations

import gc
import inspect
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import relprop
from helpers import only_what_is_new
from public_entries import ELSEWHERE, ENTRIES, KEEPS_THE_MODEL, NO_MODEL, marked, pictures
from test_faults import Bomb, Struck, Watched, interrupted_everywhere, spread
from test_leaks import left_behind, tensors


@pytest.fixture(autouse=True, scope="module")
def _only_what_is_new() -> Iterator[None]:
    with only_what_is_new():
        yield


def test_every_function_has_a_call() -> None:
    functions = {name for name in relprop.__all__ if inspect.isroutine(getattr(relprop, name))}
    assert functions - set(ENTRIES) == ELSEWHERE | NO_MODEL


@pytest.mark.parametrize("name", ENTRIES)
def test_a_call_leaves_nothing(name: str, tmp_path: Path) -> None:
    seen: list[Any] = []
    model, call = marked(seen), ENTRIES[name]
    for _ in range(2):
        call(model, tmp_path)
    before = tensors()
    for _ in range(2):
        call(model, tmp_path)
    assert tensors() <= before
    assert seen and not [ref for ref in seen if ref() is not None]
    assert not left_behind(model)


@pytest.mark.parametrize("name", [name for name in ENTRIES if name not in KEEPS_THE_MODEL])
def test_a_result_does_not_keep_the_model(name: str, tmp_path: Path) -> None:
    seen: list[Any] = []
    model = marked(seen)
    kept, reference = [ENTRIES[name](model, tmp_path)], weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None and len(kept) == 1
    assert not [ref for ref in seen if ref() is not None]


LONG = ("compile", "sanity", "open_run")
over_entries = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in LONG else []) for name in ENTRIES]
)


class Explained(Watched):
    """As well as what an entry gives: an explanation afterwards."""

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__(ENTRIES[name], marked(), folder)
        self.map = self.explain()

    def explain(self) -> torch.Tensor:
        return relprop.attribute(self.model, pictures(), 1, composite="gamma_flat").values

    def unchanged(self, when: str) -> None:
        super().unchanged(when)
        assert torch.equal(self.explain(), self.map), when
        assert not left_behind(self.model), when


@over_entries
def test_a_fault_at_an_operation(name: str, tmp_path: Path) -> None:
    watched = Explained(name, tmp_path)
    with Bomb(0, Struck) as counting:
        watched.call()
    for n, at in enumerate(spread(counting.seen, 3)):
        error = KeyboardInterrupt if n % 2 else Struck
        with pytest.raises(error), Bomb(at, error):
            watched.call()
        watched.unchanged(f"struck at torch function {at} of {counting.seen}")


@over_entries
def test_an_interrupt_in_the_library(name: str, tmp_path: Path) -> None:
    interrupted_everywhere(Explained(name, tmp_path), 3)


@over_entries
def test_a_fault_in_the_model(name: str, tmp_path: Path) -> None:
    """In its last layer, at the first, the second and the last time that it runs."""
    watched = Explained(name, tmp_path)
    runs, strike = [0], [0]

    def counted(module: nn.Module, args: Any) -> None:
        runs[0] += 1
        if runs[0] == strike[0]:
            raise Struck

    def struck() -> None:
        hook = watched.model.head.register_forward_pre_hook(counted)
        try:
            runs[0] = 0
            watched.call()
        finally:
            hook.remove()

    struck()
    for at in sorted({1, 2, runs[0]} & set(range(1, runs[0] + 1))):
        strike[0] = at
        with pytest.raises(Struck):
            struck()
        watched.unchanged(f"struck in forward pass {at} of {runs[0]}")


@pytest.mark.filterwarnings("ignore")  # of Gradio about pandas, in threads of its own
def test_a_widget_leaves_no_graph_and_answers_after_a_fault(tmp_path: Path) -> None:
    """It explains in a thread of its own, so a fault there is told to who asked."""
    pytest.importorskip("gradio", reason="the page needs Gradio")
    client = pytest.importorskip("gradio_client", reason="programs ask the page by Gradio's client")
    import web_pages

    seen: list[Any] = []
    model, path = marked(seen), tmp_path / "picture.png"
    web_pages.photograph(8).save(path)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    frame = relprop.widget(model, size=8, reads="picture")
    try:
        asking = client.Client(frame.src, verbose=False, analytics_enabled=False)

        def asked() -> Any:
            return asking.predict(client.handle_file(path), api_name="/explain")

        def struck(module: nn.Module, args: Any) -> None:
            raise Struck

        first = asked()
        count = tensors()
        assert asked() == first
        hook = model.head.register_forward_pre_hook(struck)
        with pytest.raises(Exception, match=r"(?s)."):  # Gradio's own class, whose text it may keep to itself
            asked()
        hook.remove()
        assert asked() == first
        assert tensors() <= count
        assert len(seen) > 3 and not [ref for ref in seen if ref() is not None]
        asking.close()
    finally:
        frame.server.close()
    gc.collect()  # sockets and loops end here, not in a later test
    assert not left_behind(model) and not model.training
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())

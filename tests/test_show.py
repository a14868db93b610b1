"""Where a result is shown: notebook, terminal, browser, matplotlib."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import relprop
from relprop.errors import InputError
from relprop.rendering import Heatmap, terminal


@pytest.fixture
def image() -> relprop.Relevance:
    torch.manual_seed(0)
    return relprop.attribute(nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 3)), torch.randn(1, 3, 8, 8), 0)


@pytest.fixture
def row() -> relprop.Relevance:
    torch.manual_seed(0)
    return relprop.attribute(nn.Linear(4, 3), torch.randn(10, 4), 0)


def test_in_a_terminal(
    image: relprop.Relevance, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    image.show()
    shown = capsys.readouterr().out
    assert "\x1b[48;2;" in shown and "▀" in shown and "target 0" in shown
    monkeypatch.setenv("NO_COLOR", "1")
    image.show("terminal")
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and "tenths" in shown


def test_half_blocks_are_the_pixels() -> None:
    shown = Heatmap.of(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    assert terminal.picture(shown.image(), 2) == (
        "\x1b[48;2;16;70;160m\x1b[38;2;151;18;33m▀\x1b[48;2;255;255;255m\x1b[38;2;255;255;255m▀\x1b[0m"
    )


def test_a_map_without_colour_keeps_sign_and_size() -> None:
    values = torch.tensor([[1.0, -0.5, 0.0], [0.04, torch.nan, 0.2]])
    text = terminal.heatmap(Heatmap.of(values), colour=False).splitlines()
    assert text[0] == "+9 -5" and text[1] == "   ?  +2"
    assert "1 of 6 values are not finite" in text[-1]


def test_samples_left_out_are_counted(row: relprop.Relevance, capsys: pytest.CaptureFixture) -> None:
    row.show(most=2)
    shown = capsys.readouterr().out
    assert "sample 1" in shown and "sample 2" not in shown and "8 more samples" in shown


def test_in_a_notebook(image: relprop.Relevance, monkeypatch: pytest.MonkeyPatch) -> None:
    displayed: list[str] = []
    ipython, display = ModuleType("IPython"), ModuleType("IPython.display")
    ipython.get_ipython = lambda: SimpleNamespace(kernel=1)
    display.HTML, display.display = str, displayed.append
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    image.show()
    assert displayed[0].startswith('<div class="relprop">') and "<svg" in displayed[0]
    assert image._repr_html_() == displayed[0]


def test_in_the_browser(image: relprop.Relevance, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    image.show("browser")
    path = Path(opened[0].removeprefix("file://"))
    assert "Content-Security-Policy" in path.read_text(encoding="utf-8")
    path.unlink()


def test_there_is_no_other_place(image: relprop.Relevance) -> None:
    with pytest.raises(InputError, match="'notebook', 'terminal' or 'browser'"):
        image.show("printer")


def test_on_axes_of_matplotlib(image: relprop.Relevance, row: relprop.Relevance) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, (left, middle, right) = pyplot.subplots(1, 3)
    assert image.plot(left) is left
    shown = left.images[0]
    assert np.allclose(shown.get_array(), image.values[0].double().sum(0))
    assert shown.norm.vmin == -shown.norm.vmax
    assert shown.cmap(shown.norm(0.0))[:3] == (1.0, 1.0, 1.0)
    row.plot(middle, sample=3, names=["$x$", "b", "c", "d"])
    assert {label.get_text() for label in middle.get_yticklabels()} == {r"\$x\$", "b", "c", "d"}
    torch.manual_seed(0)
    signal = relprop.attribute(lambda x: (x**2).sum((1, 2)), torch.randn(1, 2, 9))
    signal.plot(right)
    assert len(right.lines) == 3  # two channels and the axis
    figure.canvas.draw()
    pyplot.close(figure)
    with pytest.raises(InputError, match="sample 10"):
        row.plot(sample=10)

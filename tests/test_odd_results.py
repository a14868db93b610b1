"""A result that is zero, constant, or no number at all is drawn in every form, without a warning, and kept as it is."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import relprop
from relprop.errors import InputError

ODD: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "zero": torch.zeros_like,
    "constant": lambda v: torch.full_like(v, -2.0),
    "all NaN": lambda v: torch.full_like(v, torch.nan),
    "one NaN": lambda v: v.flatten().index_fill(0, torch.tensor([0]), torch.nan).view(v.shape),
    "infinite": lambda v: v * torch.inf,
    "subnormal": lambda v: v * 1e-42,
}
SAYS = {"zero": "all zero", "all NaN": "not finite", "infinite": "not finite"}
KINDS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "image": ((2, 3, 6, 6), {}),
    "one pixel": ((1, 3, 1, 1), {}),
    "series": ((2, 2, 8), {"rate": 10}),
    "table": ((2, 5), {"names": list("abcd=")}),
    "audio": ((1, 90), {"rate": 8000}),
    "volume": ((1, 1, 3, 4, 5), {}),
    "text": ((1, 4, 3), {"tokens": ["[CLS]", "un", "##fair", "="]}),
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_drawn_and_kept(kind: str, odd: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shape, options = KINDS[kind]
    model = nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(shape[1:]).numel(), 2)).eval()
    R = relprop.attribute(model, torch.randn(shape), labels=["a", "<b>"], ledger=True)
    R = replace(R, values=ODD[odd](R.values))
    for form in (".png", ".svg", ".pdf", ".html", *([".csv"] if kind in ("table", "text") else [])):
        R.save(tmp_path / f"drawn{form}", **options)
    for form in (".json", ".npz", ""):
        R.save(tmp_path / f"numbers{form}")
    kept = relprop.load(tmp_path / "numbers")
    torch.testing.assert_close(kept.values, R.values, rtol=0, atol=0, equal_nan=True)
    R.show("terminal", **options)
    assert "residual" in capsys.readouterr().out
    relprop.report([R, kept], tmp_path / "report.html", **options)
    assert SAYS.get(odd, "") in R.to_html(**options)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_drawn_by_matplotlib(kind: str) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    shape, options = KINDS[kind]
    model = nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(shape[1:]).numel(), 2)).eval()
    R = relprop.attribute(model, torch.randn(shape))
    for change in ODD.values():
        replace(R, values=change(R.values)).plot(**options)
        pyplot.close("all")


def test_a_waterfall_of_what_is_no_number_is_bars() -> None:
    R = relprop.attribute(nn.Linear(2, 1), torch.randn(1, 2))
    svg = replace(R, values=torch.full((1, 2), torch.nan)).to_svg()
    assert "not finite" in svg and "Waterfall" not in svg


def test_a_percentile_that_is_none_is_refused_for_every_kind() -> None:
    R = relprop.attribute(nn.Linear(2, 1), torch.randn(1, 2))
    with pytest.raises(InputError, match="above 0 and up to 100"):
        R.to_image(percentile=0)


def test_a_report_is_about_results(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="got int"):
        relprop.report([3], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("suffix", [".gif", ".nii", ".csv"])
def test_a_format_that_does_not_fit_names_one_that_does(suffix: str, tmp_path: Path) -> None:
    """One sample of a picture has no slices either: another file is the way."""
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), torch.nn.Linear(72, 2)).eval()
    R = relprop.attribute(net, torch.rand(2, 1, 8, 8), 0)
    for result in (R, R[0]):
        with pytest.raises(InputError, match=r"save it as \.(png|npz)|Save it as \.npz") as raised:
            result.save(tmp_path / f"map{suffix}")
        advised = re.search(r"ave it as (\.\w+)", str(raised.value))
        assert advised is not None
        result.save(tmp_path / f"map{advised[1]}")

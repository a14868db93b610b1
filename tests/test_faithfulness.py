"""A fast form of the leaderboard: what `auto` was changed for must still hold. See docs/faithfulness.md."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from benchmarks.faithfulness.kept import read
from benchmarks.faithfulness.methods import NAMED
from benchmarks.faithfulness.page import whole
from benchmarks.faithfulness.small import cancer, motifs, vgg

import relprop
from relprop.evaluation import Evaluation
from relprop.evaluation.paired_statistics import differences, mean, standard_error

PAGE = Path(__file__).parent.parent / "docs" / "faithfulness.md"


def test_the_page_is_kept_but_for_what_is_measured_again() -> None:
    text = PAGE.read_text(encoding="utf-8")
    written = read(text)
    assert whole(written) == text
    title = "MLP, digits"
    assert len(written.glance[title]) == 1 and written.networks[title][0] == f"## {title}"
    assert len(written.searches) == 6 and len(written.confirmations["ResNet, digits"]) == 3
    written.networks[title] = [f"## {title}", "", "measured again"]
    written.networks["another network, digits"] = ["## another network, digits", "", "new"]
    before, after = text.split("\n## "), whole(written).split("\n## ")
    changed = [section for section in after if section not in before]
    assert [section.rstrip() for section in changed] == [f"{title}\n\nmeasured again", "another network, digits\n\nnew"]
    assert [section for section in before if section not in after] == [
        section for section in before if section.startswith(f"{title}\n")
    ]
    assert after.index(changed[1]) == max(n for n, section in enumerate(after) if " samples; " in section) + 1


@pytest.mark.slow
def test_auto_on_series_is_faithful_and_finds_what_is_planted() -> None:
    torch.manual_seed(0)
    case = motifs(30)
    assert case.accuracy > 0.95
    E = relprop.evaluate(
        case.model, case.inputs, case.targets, ["auto", "gamma_flat", "epsilon_plus_flat", "excitation_backprop"],
        metrics=["flipping", "localisation"], truth=case.truth,
    )  # fmt: skip
    assert float(E["pointing"][0].mean()) >= 0.95
    for column in E.find("abpc"):
        for other in range(1, len(E.methods)):
            gain = column.values[0] - column.values[other]
            assert mean(gain) > 2 * standard_error(gain), (column.name, E.methods[other])
    pytest.importorskip("scipy")
    for each in differences(E["abpc"], E.methods, "auto", "abpc", 1):
        assert each.p < 0.05, each


def behind(E: Evaluation) -> list[tuple[str, str]]:
    """The methods that `auto`, the first, is more than two standard errors behind of, with the replacement."""
    found = []
    for column in E.find("abpc"):
        for name, values in zip(E.methods[1:], column.values[1:], strict=True):
            gap = values - column.values[0]
            if mean(gap) > 2 * standard_error(gap):
                found.append((name, column.name))
    return found


@pytest.mark.slow
def test_auto_on_pictures_is_not_behind_any_named_composite() -> None:
    torch.manual_seed(0)
    case = vgg(30)
    assert case.accuracy > 0.95
    methods = {name: name for name in ("auto", *NAMED)} | {"gamma 0.25": relprop.composites.gamma_box(0.25)}
    E = relprop.evaluate(case.model, case.inputs, case.targets, methods, units=("patches", 2), free=["random"])
    assert not behind(E)
    for column in E.find("abpc"):
        for other in ("gamma_flat", "gamma 0.25"):  # what auto was before
            gain = column.values[0] - column.values[E.methods.index(other)]
            assert mean(gain) > 2 * standard_error(gain), (column.name, other)


@pytest.mark.slow
def test_auto_on_standardised_tables_is_not_behind_any_named_composite() -> None:
    torch.manual_seed(0)
    case = cancer(40)
    assert case.accuracy > 0.95
    E = relprop.evaluate(case.model, case.inputs, case.targets, ["auto", *NAMED], free=["random", "input"])
    assert not behind(E)
    other = relprop.evaluate(case.model, case.inputs, case.targets, ["gamma_box", *NAMED], free=())
    assert len(behind(other)) >= 4  # it can fail

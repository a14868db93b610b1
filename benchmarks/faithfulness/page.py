"""The leaderboard as a page."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.faithfulness.cases import Case
from relprop.evaluation import Evaluation
from relprop.evaluation.paired_statistics import differences, mean, standard_error

INTRODUCTION = """# Faithfulness

How faithful are the composites, and is what `"auto"` picks a good choice? This page is made by

    python -m benchmarks.faithfulness --folder work --search --confirm --page docs/faithfulness.md

It flips units of correctly classified held-out samples, most and least relevant first, and measures the area between the
two curves of the logit (ABPC; more is better) with two replacements. Gains are paired differences to `"auto"` on the same
samples, ± one standard error, a column for each replacement. Rows in brackets know nothing about the network. *Passes* are
forward and backward passes for each sample. The small networks are trained by the script, which fixes all seeds. "box" is
a z-box first layer with each sample's own bounds, "observed box" one with the bounds of all samples.

The score of the language model is the answer's logit less that of the likeliest other token; "truth first" says how often
the word that decides has the most relevance. The samples are few and most networks small, so read the errors: a gain below
two of them is not a gain. [Evaluate explanations](evaluate.md) shows how to measure this for your own network.

What to take from it (gains over `auto` unless others are named, with the first and with the second replacement):

* **Pictures.** On the small networks (60 digits each) a flat first layer in place of the box loses: -0.593 ± 0.053 and
  -0.149 ± 0.015 on the VGG, -0.354 ± 0.06 and -0.132 ± 0.016 on the ResNet, -0.782 ± 0.068 and -0.521 ± 0.046 on the LeNet. On
  EfficientNet-Lite0 it is as good (18 pictures: +0.014 ± 0.03 and +0.05 ± 0.032). A smaller gamma, 0.05 behind the box, gains
  on the small networks: +1.13 ± 0.12 and +0.4 ± 0.039, -0.062 ± 0.16 and +0.584 ± 0.061, +0.219 ± 0.054 and +0.052 ± 0.018. On
  EfficientNet, whether gamma 0.1 is better than 0.25 depends on the size of the patches (18 pictures, ABPC of
  `gamma_box(0.1)` less `gamma_flat`): +0.36 ± 0.20 and +0.42 ± 0.16 with 16 pixels, -0.19 ± 0.22 and +0.13 ± 0.17 with 8,
  -0.54 ± 0.23 and -0.26 ± 0.23 with 4; of `gamma_box(0.25)`: -0.01 ± 0.03 and -0.05 ± 0.03, +0.02 ± 0.03 and -0.04 ± 0.04,
  -0.15 ± 0.07 and -0.11 ± 0.04. `--network efficientnet_fine` measures the smallest. DeepLift, on a copy without ReLU6, has the
  best mean there (+0.861 ± 0.32 and +0.879 ± 0.31; gamma 0.1: +0.452 ± 0.18 and +0.633 ± 0.17) and not on 13 other photographs
  (+0.311 ± 0.36 and +0.475 ± 0.54; gamma 0.1: +0.63 ± 0.28 and +0.773 ± 0.43).
* **Gamma 0.25 and smaller ones.** [More networks and samples](#would-another-default-be-better) confirm both sides. A gamma of
  0.1 gains on the VGG (6 networks, 100 digits each: +0.446 ± 0.027 and +0.162 ± 0.031), on the LeNet (6, 100 each:
  +0.236 ± 0.017 and +0.059 ± 0.013) and on EfficientNet-Lite0 with patches of 16 pixels (33 photographs: +0.32 ± 0.12 and
  +0.404 ± 0.11); on the ResNet with one replacement (6, 100 each: +0.127 ± 0.12 and +0.292 ± 0.023). With patches of 4 pixels
  it loses on EfficientNet (33 photographs: -0.273 ± 0.14 and -0.31 ± 0.15; with 8: -0.065 ± 0.13 and +0.139 ± 0.11), and a gamma
  of 0.05 loses much (-1.51 ± 0.25 and -1.14 ± 0.22): a small gamma is right about regions and wrong about pixels of a deep
  network. So `auto` takes neither. A gamma of 0.15 lies between: it gains on the small networks and on EfficientNet with
  patches of 16 pixels (33 photographs: +0.127 ± 0.051 and +0.157 ± 0.053), and with patches of 4 it is even (-0.069 ± 0.11 and
  -0.122 ± 0.11).
* **Vision transformers.** A flat layer on the patches gains on one network (60 digits: +1.93 ± 0.52 and +0.295 ± 0.087) and not
  on the other (60 digits: -0.449 ± 0.24 and +0.0071 ± 0.072), where a box loses (-0.997 ± 0.25 and -0.064 ± 0.071).
  Without gamma, `attnlrp` gains on both: +0.645 ± 0.24 and -0.012 ± 0.042, +0.453 ± 0.15 and +0.154 ± 0.043.
* **Why vision transformers keep gamma.** On [more networks](#would-another-default-be-better) `attnlrp` gains with both
  replacements on one kind of three: 3 layers (6 networks, 100 digits each: +0.741 ± 0.1 and +0.234 ± 0.035), not 2 layers (6, 100
  each: +0.344 ± 0.12 and -0.0344 ± 0.025) or 10 (2, 60 each: +0.175 ± 0.044 and -0.0353 ± 0.087). Gamma is there against the noise
  of large networks (Achtibat et al. 2024), and no large transformer was measured. A flat layer on the patches gains much on
  two kinds (+2.8 ± 0.56 and +0.477 ± 0.047; +0.683 ± 0.25 and +0.216 ± 0.078) and loses on the third
  with one replacement (-0.507 ± 0.21 and +0.128 ± 0.04). `relprop.search` tries both.
* **Series.** A flat first layer loses (planted motifs, 60 sequences: -1.36 ± 0.087 and -1.44 ± 0.1; GunPoint, 60:
  -0.114 ± 0.011 and -0.03 ± 0.0086). A smaller gamma, 0.1, gains on the motifs (+0.34 ± 0.037 and +0.376 ± 0.039) and has the
  motif first in 95 % of them instead of 100 %; on GunPoint it loses with one replacement and gains with the other.
* **Recurrent layers.** Nothing is two errors better with both replacements on the digits (60). On JapaneseVowels (60) a relative
  epsilon of 0.1 is: +0.38 ± 0.17 and +0.409 ± 0.17.
* **Tables.** Where columns are standardised, no composite is two errors better with either replacement, and a box loses (60
  rows: -2.64 ± 0.3 and -2.33 ± 0.57). Where an entry of 0 means something, as in a digit, a box gains much (60 digits,
  observed bounds: +7.75 ± 0.45 and +8.09 ± 0.7); `relprop.search` tries it.
* **Texts.** On BERT a relative epsilon of 0.01 gains a hundredth (60 news: +0.046 ± 0.022 and +0.194 ± 0.053, where the ABPC of
  `auto` is 5.5 and 16.9). On SmolLM2 (43 prompts) nothing gains with both replacements (the same: -0.068 ± 0.076 and
  +0.167 ± 0.1).
"""


def head(made: Sequence[tuple[Case, Evaluation, dict[str, str]]]) -> list[str]:
    """What comes before the sections: the best of each network at a glance."""
    lines = [INTRODUCTION, "## At a glance", ""]
    lines += ["| network, data (n) | `auto` is | rank of `auto` | best composite, gain | best other method, gain |"]
    lines += ["|---|---|---|---|---|"]
    for case, found, _ in made:
        gains = gains_of(found)
        ranked = order_of(found)
        composites = [name for name in ranked if name in composites_in(found) and name != "auto"]
        others = [name for name in ranked if name not in composites_in(found) and name not in found.free]
        cells = [
            f"{case.name}, {case.data} ({len(found)})",
            f"`{case.auto.name}`",
            f"{ranked.index('auto') + 1} of {len(found.asked)}",
        ]
        for names in (composites, others):
            cells.append(f"{names[0]}: {' / '.join(_gain(one[names[0]]) for one in gains)}" if names else "")
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def composites_in(found: Evaluation) -> list[str]:
    """The methods that are composites: two passes, and a name that captum does not have."""
    others = ("Saliency", "Input x Gradient", "IntegratedGradients", "GradientShap", "SmoothGrad", "DeepLift", "GradCAM",
              "Occlusion")  # fmt: skip
    return [name for name in found.asked if name not in others]


def order_of(found: Evaluation) -> list[str]:
    """The methods, best first, by the mean over replacements."""
    order = found["abpc"].mean(1).argsort(descending=True, stable=True).tolist()
    return [found.methods[n] for n in order]


def gains_of(found: Evaluation) -> list[dict[str, object]]:
    """The gain over `auto` of each method, a dict for each replacement."""
    return [
        {each.method: each for each in differences(column.values, found.methods, "auto", column.name, 1)}
        for column in found.find("abpc")
    ]


def _gain(each: object) -> str:
    return f"{each.mean:+.3g} ± {each.error:.2g}"  # type: ignore[attr-defined]


def section(case: Case, found: Evaluation, bad: dict[str, str]) -> list[str]:
    """A network's table."""
    columns = found.find("abpc")
    heads = ["method", *(f"gain, {_short(column.replacement)}" for column in columns), "passes"]
    if case.truth is not None:
        heads.insert(-1, "truth first")
    order, gains = order_of(found), gains_of(found)
    lines = [
        f"## {case.name}, {case.data}",
        "",
        f"{len(found)} samples; {found.units}; accuracy {case.accuracy:.3f}. `auto` is `{case.auto.name}`, number "
        f"{order.index('auto') + 1} of {len(found.asked)} methods; its ABPC is "
        + ", ".join(f"{mean(c.values[0]):.3g} ± {standard_error(c.values[0]):.2g}" for c in columns)
        + f". Rank correlation of the methods between the replacements: {next(iter(found.agreement().values())):.2f}.",
        "",
        "| " + " | ".join(heads) + " |",
        "|---" * len(heads) + "|",
    ]
    for name in order:
        cost = found.cost[name]
        cells = [f"({name})" if name in found.free else f"**{name}**" if name == "auto" else name]
        cells += ["0" if name == "auto" else _gain(one[name]) for one in gains]
        if case.truth is not None:
            cells.append(f"{float(found['pointing'][found.methods.index(name)].mean()):.0%}")
        passes = f"{cost.passes:g}" if cost.passes or name in found.free else "not counted"
        lines.append("| " + " | ".join([*cells, passes]) + " |")
    lines += ["", *(f"Left out: {name} ({why})." for name, why in bad.items()), ""]
    return lines


def _short(replacement: str) -> str:
    """`DataMean(data=tensor of shape (60, 64))` without its shape."""
    return replacement.split("(data=")[0]

"""The leaderboard as a page."""

from __future__ import annotations

import itertools

from benchmarks.faithfulness.cases import Case
from benchmarks.faithfulness.confirming import section_of_confirmed
from benchmarks.faithfulness.kept import GLANCE, Written
from benchmarks.faithfulness.searching import section_of_searches
from relprop.evaluation import Evaluation
from relprop.evaluation.paired_statistics import differences, mean, standard_error

INTRODUCTION = """# Faithfulness

How faithful are the composites, and is what `"auto"` picks a good choice? This page is made by

    python -m benchmarks.faithfulness --folder work --search --confirm --page docs/faithfulness.md

It flips units of correctly classified held-out samples, most and least relevant first, and measures the area between the
two curves of the logit (ABPC; more is better) with two replacements. Gains are paired differences to `"auto"` on the same
samples, ± one standard error, a column for each replacement; where a table names another reference, they are over that.
Rows in brackets know nothing about the network. *Passes* are forward and backward passes for each sample. The small
networks are trained by the script, which fixes all seeds. "box" is a z-box first layer with each sample's own bounds,
"observed box" one with the bounds of all samples.

The score of a language model is the answer's logit less that of the likeliest other token; "truth first" says how often
the word that decides has the most relevance. The samples are few and most networks small, so read the errors: a gain below
two of them is not a gain. [Evaluate explanations](evaluate.md) shows how to measure this for your own network.

What to take from it (gains over `auto` unless others are named, with the first and with the second replacement):

* **The default for pictures** is a gamma of 0.15 behind the box. It was 0.25 until a new default was found that is more than
  two errors better with both replacements on VGG, LeNet and EfficientNet with patches of 16 pixels, and nowhere two errors
  worse. On [networks and digits that took no part in the choice](#would-another-default-be-better) (6 of each, 100 digits
  each) 0.25 loses to it: -0.378 ± 0.054 and -0.118 ± 0.0056 on the VGG, -0.182 ± 0.03 and -0.195 ± 0.016 on the ResNet,
  -0.104 ± 0.0075 and -0.0317 ± 0.007 on the LeNet. On EfficientNet-Lite0 (33 photographs) 0.25 loses with
  patches of 16 pixels (-0.127 ± 0.051 and -0.157 ± 0.053) and is even with 8 (+0.0048 ± 0.057 and -0.115 ± 0.063) and with 4
  (+0.0691 ± 0.11 and +0.122 ± 0.11).
* **Smaller gammas** gain more on the small networks. Over 0.15, a gamma of 0.1 gains on the VGG (6 networks, 100 digits each:
  +0.198 ± 0.03 and +0.0714 ± 0.0049) and on the LeNet (6, 100 each: +0.054 ± 0.0075 and +0.0134 ± 0.0038), and on the ResNet
  with one replacement (6, 100 each: +0.0494 ± 0.03 and +0.145 ± 0.012). On EfficientNet-Lite0 (33 photographs) it gains with
  patches of 16 (+0.193 ± 0.094 and +0.247 ± 0.083) and loses with patches of 4 (-0.204 ± 0.1 and -0.188 ± 0.09; with 8:
  -0.0603 ± 0.1 and +0.0243 ± 0.08), and a gamma of 0.05 loses much with 4 (-1.44 ± 0.25 and -1.02 ± 0.23): a small gamma is
  right about regions and wrong about pixels of a deep network. So `auto` takes neither.
* **The box.** On the small networks (60 digits each) a flat first layer in its place loses: -0.644 ± 0.061 and -0.201 ± 0.025
  on the VGG, -0.412 ± 0.07 and -0.204 ± 0.021 on the ResNet, -0.857 ± 0.074 and -0.587 ± 0.053 on the LeNet. On
  EfficientNet-Lite0 it is as good (18 pictures: +0.0221 ± 0.031 and +0.0422 ± 0.026).
* **Other methods on pictures.** On EfficientNet-Lite0 DeepLift, on a copy without ReLU6, has the best mean (18 pictures:
  +0.712 ± 0.28 and +0.666 ± 0.27; gamma 0.1 without the box: +0.303 ± 0.14 and +0.42 ± 0.14) and not on 13 other photographs
  (+0.223 ± 0.34 and +0.356 ± 0.59; gamma 0.1 without the box: +0.542 ± 0.26 and +0.654 ± 0.46).
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
  +0.167 ± 0.1). On Gemma 3 270M (44 of the 82 prompts that it answers right, of 195; made by `--network gemma3 --samples 44`)
  the same gains with both (+0.266 ± 0.096 and +0.158 ± 0.078, where the ABPC of `auto` is 2.66 and 2.1), the second time by
  hardly more than two errors, and 0.1 with one (+0.161 ± 0.23 and +0.406 ± 0.19). One network of two is not enough to change
  `auto`; on yours, try it.
"""


def whole(written: Written) -> str:
    """The page: what to take from it, the best of each network at a glance, and the sections."""
    lines = [INTRODUCTION, f"## {GLANCE}", ""]
    lines += ["| network, data (n) | `auto` is | rank of `auto` | best composite, gain | best other method, gain |"]
    lines += ["|---|---|---|---|---|", *itertools.chain(*written.glance.values()), ""]
    for each in written.networks.values():
        lines += ["\n".join(each).rstrip(), ""]
    lines += section_of_searches(written.searches) if written.searches else []
    lines += section_of_confirmed(written.confirmations) if written.confirmations else []
    return "\n".join(lines).rstrip() + "\n"


def at_a_glance(case: Case, found: Evaluation) -> str:
    """A network's row in the first table."""
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
    return "| " + " | ".join(cells) + " |"


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

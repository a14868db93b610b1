"""Draws images/sums.png: one small residual network and one digit, by four libraries, and what their maps add up to.

`make sums`, with captum, zennit and autolrp where they are installed: those that are not are left out. The
network has no biases, so that every definition of LRP-epsilon hands the whole score to the pixels.
"""

from __future__ import annotations

import glob
import importlib.util
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import relprop
from relprop.rendering import Heatmap, Panel, framed, strip
from relprop.rendering.image import picture_of
from relprop.rendering.scale import number

IMAGES = Path(__file__).parent / "images"
EPSILON = 1e-6
DIGIT = 3


class Block(nn.Module):
    """Two convolutions, added to what was there: `x + f(x)`, as people write it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.before = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.after = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.inner, self.outer = nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(N, C, H, W)` to maps."""
        return self.outer(x + self.after(self.inner(self.before(x))))


class Network(nn.Module):
    """A residual network for digits of 28 x 28, without a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.active = (
            nn.Conv2d(1, 16, 5, stride=2, padding=2, bias=False),
            nn.ReLU(),
        )
        self.blocks = nn.Sequential(*(Block(16) for _ in range(3)))
        self.pool, self.head = nn.AvgPool2d(2), nn.Linear(16 * 49, 10, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Scores of pictures `(N, 1, 28, 28)`."""
        x = self.pool(self.blocks(self.active(self.stem(x))))
        return self.head(x.flatten(1))


def by_relprop(model: nn.Module, x: Tensor, target: int) -> Tensor:
    """LRP-epsilon by relprop."""
    values: Tensor = relprop.attribute(
        model, x, target, composite=relprop.composites.epsilon(EPSILON)
    ).values
    return values


def by_captum(model: nn.Module, x: Tensor, target: int) -> Tensor:
    """LRP-epsilon by captum, which is its default rule."""
    from captum.attr import LRP
    from captum.attr._utils.lrp_rules import EpsilonRule

    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear, nn.AvgPool2d)):
            module.rule = EpsilonRule(EPSILON)
    found: Tensor = LRP(model).attribute(x, target=target)
    return found


def by_zennit(model: nn.Module, x: Tensor, target: int) -> Tensor:
    """LRP-epsilon by zennit, whose hooks see modules: a sum written in a forward needs a canonizer made for it."""
    declared = _declare_torchvision()
    from zennit.composites import EpsilonPlus  # noqa: F401  (the module is imported before its rules)
    from zennit.core import Composite
    from zennit.rules import Epsilon, Norm, Pass

    def rule(context: dict[str, Any], name: str, module: nn.Module) -> Any:
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            return Epsilon(epsilon=EPSILON)
        if isinstance(module, nn.AvgPool2d):
            return Norm()
        return Pass() if isinstance(module, nn.ReLU) else None

    leaf = x.clone().requires_grad_()
    with Composite(module_map=rule).context(model) as hooked:
        output = hooked(leaf)
        start = torch.zeros_like(output)
        start[:, target] = output.detach()[:, target]
        (found,) = torch.autograd.grad(output, leaf, start)
    del declared
    return found


def by_autolrp(model: nn.Module, x: Tensor, target: int) -> Tensor:
    """LRP by autolrp as it comes: epsilon on weighted layers. It hands out 1, here the score."""
    import autolrp

    leaf = autolrp.tensor(x)
    score = model(leaf)[0, target]
    score.lrp()
    return torch.as_tensor(leaf.relevance) * float(score)


def definition(model: nn.Module, x: Tensor, target: int) -> Tensor:
    """The limit of LRP-epsilon for a small epsilon. In a piecewise linear network without biases it is `x * gradient`."""
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(leaf)[0, target], leaf)
    return x * gradient


LIBRARIES: dict[str, Callable[[nn.Module, Tensor, int], Tensor]] = {
    "captum": by_captum,
    "zennit": by_zennit,
    "autolrp": by_autolrp,
    "relprop": by_relprop,
}


def sums() -> tuple[Tensor, float, Tensor, dict[str, Tensor]]:
    """The digit, the score of its class, the map by definition, and that of each library that is installed."""
    from gallery import data, networks

    torch.manual_seed(0)
    x, y, x_test, y_test = data.digits()
    model = networks.fit(Network(), x, y, 4)
    digit = x_test[y_test == DIGIT][:1]
    with torch.no_grad():
        score = float(model(digit)[0, DIGIT])
    found = {}
    for name, explain in LIBRARIES.items():
        if importlib.util.find_spec(name) is None:
            continue
        own = Network().eval()  # some libraries leave something behind
        own.load_state_dict(model.state_dict())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found[name] = explain(own, digit, DIGIT).detach()
    return digit, score, definition(model, digit, DIGIT), found


def off(distance: float) -> str:
    """The distance from the map by definition, relative to its size, in words."""
    if distance < 1e-3:
        return "less than 0.1 %"
    return f"{100 * distance:.0f} %" if distance < 1 else f"{distance:.0f} times"


def main() -> None:
    """Draws the figure, and writes the numbers beside it."""
    digit, score, expected, found = sums()
    panels = [
        Panel(picture_of(digit[0])[0], f"the digit {DIGIT}\nscore {number(score)}")
    ]
    numbers: dict[str, Any] = {"score": score}
    for name, values in found.items():
        total = float(values.sum())
        apart = float((values - expected).norm() / expected.norm())
        numbers[name] = {"sum": total, "distance": apart}
        caption = f"{name}\nadds up to {number(total)}\noff by {off(apart)}"
        panels.append(Panel(Heatmap.of(values[0]), caption))
    framed(strip(panels, height=170)).to_image(2).save(
        IMAGES / "sums.png", optimize=True
    )
    (IMAGES / "sums.json").write_text(
        json.dumps(numbers, indent=1) + "\n", encoding="utf-8"
    )
    print(json.dumps(numbers, indent=1))


def _declare_torchvision() -> torch.library.Library | None:
    """zennit imports torchvision, which fails on another build of torch unless two operators are declared."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return None
    try:
        for file in glob.glob(f"{spec.submodule_search_locations[0]}/_C*.so"):
            torch.ops.load_library(file)
    except (OSError, ImportError):
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(
                f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            )
        return library
    return None


if __name__ == "__main__":
    main()

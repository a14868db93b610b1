"""`python -m benchmarks.evaluating`: what `relprop.evaluate` costs beside the model's own passes over the masked pictures.

Five composites on EfficientNet-Lite0, two orders of ten steps, two replacements, four pictures a round, in CPU time of one
thread. The model's passes are timed where they happen, so that a busy machine slows both alike; the median of the rounds'
ratios is printed, with the maps and with maps that are there already, in turns. Equal masks of a picture go through the model
once, so that there are fewer passes than methods x orders x steps x replacements. The third ratio is to the time that all of
these would take.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import relprop
from benchmarks.faithfulness import pictures
from gallery import networks

COMPOSITES = ("auto", "zero", "epsilon_plus", "gamma_flat", "excitation_backprop")
AT_ONCE = 4
ORDERS, STEPS, REPLACEMENTS = 2, 10, 2
"""What `evaluate` does where nothing else is asked for."""


@dataclass
class Clock:
    """The time of the passes without gradients, and their rows. Not the model's: that is put back as it was."""

    seconds: float = 0.0
    rows: int = 0


CLOCK = Clock()


class Timed(nn.Module):
    """Times the model's passes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        start = time.process_time()
        found = self.model(x)
        if not torch.is_grad_enabled():
            CLOCK.seconds += time.process_time() - start
            CLOCK.rows += len(x)
        return found


def ratios(model: Timed, x: Tensor, methods: list[Any]) -> tuple[float, float]:
    """The time of an evaluation over that of the passes in it, and over that of a pass for each step of each curve."""
    CLOCK.seconds, CLOCK.rows, start = 0.0, 0, time.process_time()
    relprop.evaluate(model, x, methods=methods, units=("patches", 16), free=())
    spent = time.process_time() - start
    each = CLOCK.seconds / CLOCK.rows
    return spent / CLOCK.seconds, spent / (each * len(x) * len(methods) * ORDERS * STEPS * REPLACEMENTS)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    model = Timed(networks.efficientnet(0)).eval()
    every = torch.cat([pictures.pictures_of(model.model.size)[0], pictures.photographs_of(model.model.size)])
    with_maps, without, of_all, rows = [], [], [], 0
    for n in range(options.rounds):
        x = every[AT_ONCE * (n % 8) :][:AT_ONCE]
        maps = [relprop.attribute(model, x, composite=name).values for name in COMPOSITES]
        for found, one in zip((with_maps, of_all), ratios(model, x, list(COMPOSITES)), strict=True):
            found.append(one)
        rows += CLOCK.rows
        without.append(ratios(model, x, maps)[0])
        print(
            f"{with_maps[-1]:.3f} with the maps, {without[-1]:.3f} without; {of_all[-1]:.3f} of all passes", flush=True
        )
    print(
        f"medians: {statistics.median(with_maps):.3f} with the maps, {statistics.median(without):.3f} without; "
        f"{statistics.median(of_all):.3f} with the maps, over a pass for each step of each curve; {rows} masked pictures"
    )


if __name__ == "__main__":
    main()

"""Sound: which moments of a tone gave its pitch away."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

import relprop
from gallery import networks
from gallery.catalogue import entry, headed
from relprop.rendering import Drawing, audio


def tone(pitch: float, strengths: list[float]) -> Tensor:
    """A tone of harmonics of these strengths, as CREPE takes it."""
    time = np.arange(1024) / 16000
    generator = np.random.default_rng(0)
    wave = sum(
        a * np.sin(2 * np.pi * pitch * (i + 1) * time + generator.uniform(0, 6)) for i, a in enumerate(strengths)
    )
    wave = torch.tensor(wave + 0.01 * generator.normal(size=1024), dtype=torch.float32)
    return ((wave - wave.mean()) / wave.std()).view(1, 1, 1024, 1)


@entry("Sound", "The pitch of a tone")
def pitch() -> Drawing:
    """CREPE hears 220 Hz in 64 ms of a tone with six harmonics. Its pitches are a fifth of a semitone apart."""
    return heard(tone(220.0, [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5, 1 / 6]))


@entry("Sound", "The pitch that is not there")
def missing() -> Drawing:
    """The same tone without its fundamental: CREPE hears it all the same, out of the harmonics."""
    return heard(tone(220.0, [0, 1, 0.8, 0.6, 0.5, 0.4]))


def heard(x: Tensor) -> Drawing:
    """A tone, explained for the pitch that was heard."""
    R = relprop.attribute(networks.crepe(), x, composite="epsilon_plus")
    return headed(audio(R.values[0], x[0], 16000), R, f"heard: {networks.hertz(R.target[0]):.0f} Hz")

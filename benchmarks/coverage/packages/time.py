"""Things in time: series, spikes, and differential equations."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import relprop
from benchmarks.coverage.architectures import Architecture

STEPS, FEATURES = 8, 3


def series() -> Tensor:
    return torch.randn(2, STEPS, FEATURES)


class Spiking(nn.Module):
    """Two layers of leaky neurons, as the package's tutorial writes them; the answer is the potential at the end."""

    def __init__(self) -> None:
        import snntorch
        from snntorch import surrogate

        super().__init__()
        self.one, self.two = nn.Linear(FEATURES, 12), nn.Linear(12, 3)
        spike = surrogate.fast_sigmoid(slope=25)
        self.first, self.second = snntorch.Leaky(0.9, spike_grad=spike), snntorch.Leaky(0.9, spike_grad=spike)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.first.init_leaky(), self.second.init_leaky()
        for step in range(x.shape[1]):
            spikes, first = self.first(self.one(x[:, step]), first)
            _, second = self.second(self.two(spikes), second)
        return second


class SpikingJelly(nn.Module):
    """Leaky neurons with an arctan in the place of the step's gradient; the answer is the mean rate of the inputs to the last."""

    def __init__(self) -> None:
        from spikingjelly.activation_based import functional, layer, neuron, surrogate

        super().__init__()
        self.reset = functional.reset_net
        self.layers = nn.Sequential(
            layer.Linear(FEATURES, 12), neuron.LIFNode(surrogate_function=surrogate.ATan(), detach_reset=True),
            layer.Linear(12, 3),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        self.reset(self.layers)
        return sum(self.layers(x[:, step]) for step in range(x.shape[1])) / x.shape[1]


class Norse(nn.Module):
    def __init__(self) -> None:
        from norse.torch import LIFRecurrent, LILinearCell

        super().__init__()
        self.spikes, self.potential = LIFRecurrent(FEATURES, 12), LILinearCell(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        spikes, _ = self.spikes(x.transpose(0, 1))
        state, potential = None, x.new_zeros(())
        for step in spikes:
            potential, state = self.potential(step, state)
        return potential


class Equation(nn.Module):
    """dy/dt is a small network; the answer is a linear map of where y ends."""

    def __init__(self, method: str = "rk4", adjoint: bool = False) -> None:
        super().__init__()
        self.field = nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Linear(8, FEATURES))
        self.head = nn.Linear(FEATURES, 3)
        self.method, self.adjoint = method, adjoint

    def forward(self, x: Tensor) -> Tensor:
        import torchdiffeq

        time = torch.linspace(0, 1, 5, dtype=x.dtype)
        if self.adjoint:
            found = torchdiffeq.odeint_adjoint(
                lambda t, y: self.field(y), x, time, method=self.method, adjoint_params=tuple(self.field.parameters())
            )
        else:
            found = torchdiffeq.odeint(lambda t, y: self.field(y), x, time, method=self.method)
        return self.head(found[-1])


class Controlled(nn.Module):
    """A controlled differential equation along the series."""

    def __init__(self) -> None:
        super().__init__()
        self.start, self.field, self.head = nn.Linear(FEATURES, 4), nn.Linear(4, 4 * FEATURES), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        import torchcde

        path = torchcde.LinearInterpolation(torchcde.linear_interpolation_coeffs(x))
        found = torchcde.cdeint(
            path, lambda t, z: self.field(z).tanh().unflatten(-1, (4, FEATURES)), self.start(x[:, 0]), path.interval,
            adjoint=False, method="rk4", options={"step_size": 1.0},
        )  # fmt: skip
        return self.head(found[:, -1])


def told(build: Callable[[], nn.Module], module: str, function: str, family: str) -> Callable[[], nn.Module]:
    """A model whose custom function is registered first, with the line that the error gives."""

    def made() -> nn.Module:
        model = build()
        relprop.register(getattr(importlib.import_module(module), function), family=family, replace=True)
        return model

    return made


def _liquid(name: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import ncps.torch
        from ncps.wirings import AutoNCP

        return getattr(ncps.torch, name)(FEATURES, AutoNCP(10, 3), batch_first=True)

    return build


def _operator() -> nn.Module:
    from neuralop.models import FNO

    return FNO(
        n_modes=(4,), in_channels=FEATURES, out_channels=2, hidden_channels=8, n_layers=2, positional_embedding=None
    )


def _policy() -> nn.Module:
    import gymnasium
    import numpy as np
    from stable_baselines3.common.policies import ActorCriticPolicy

    box = gymnasium.spaces.Box(-np.ones(FEATURES, np.float32), np.ones(FEATURES, np.float32))
    return ActorCriticPolicy(box, gymnasium.spaces.Discrete(3), lambda _: 1e-3, net_arch=[8, 8])


def _q_network() -> nn.Module:
    import gymnasium
    import numpy as np
    from stable_baselines3.dqn.policies import DQNPolicy

    box = gymnasium.spaces.Box(-np.ones(FEATURES, np.float32), np.ones(FEATURES, np.float32))
    return DQNPolicy(box, gymnasium.spaces.Discrete(3), lambda _: 1e-3, net_arch=[8, 8]).q_net


def timed(
    name: str, package: str, kind: str, build: Callable[[], nn.Module], inputs: Any = series, **more: Any
) -> Architecture:
    return Architecture(name, package, kind, build, inputs, **more)


def states() -> Tensor:
    return torch.rand(4, FEATURES) * 2 - 1


RESET = "what is taken off a potential after a spike is a constant"
GATES = "its gates and time constants are not 0 at 0"
ALL: list[Architecture] = [
    timed("Leaky", "snntorch", "spikes", Spiking, limit=RESET),
    timed("Leaky, FastSigmoid registered", "snntorch", "spikes",
          told(Spiking, "snntorch.surrogate", "FastSigmoid", "activation"), limit=RESET),
    timed("LIFNode", "spikingjelly", "spikes", SpikingJelly, limit=RESET),
    timed("LIFRecurrent", "norse", "spikes", Norse, limit=RESET),
    timed("LIFRecurrent, SuperSpike registered", "norse", "spikes",
          told(Norse, "norse.torch.functional.superspike", "SuperSpike", "activation")),
    timed("odeint, rk4", "torchdiffeq", "differential equations", Equation, states),
    timed("odeint, dopri5", "torchdiffeq", "differential equations", lambda: Equation("dopri5"), states,
          mixes="the steps are chosen for all samples together"),
    timed("odeint, dopri5, _UncheckedAssign registered", "torchdiffeq", "differential equations",
          told(lambda: Equation("dopri5"), "torchdiffeq._impl.rk_common", "_UncheckedAssign", "structure"), states,
          mixes="the steps are chosen for all samples together"),
    timed("odeint_adjoint", "torchdiffeq", "differential equations", lambda: Equation(adjoint=True), states),
    timed("cdeint", "torchcde", "differential equations", Controlled),
    timed("CfC", "ncps", "series", _liquid("CfC"), select=0),
    timed("LTC", "ncps", "series", _liquid("LTC"), select=0, limit=GATES),
    timed("FNO", "neuralop", "series", _operator, lambda: torch.randn(2, FEATURES, 16)),
    timed("ActorCriticPolicy", "stable_baselines3", "reinforcement learning", _policy, states, select=1),
    timed("QNetwork", "stable_baselines3", "reinforcement learning", _q_network, states),
]  # fmt: skip

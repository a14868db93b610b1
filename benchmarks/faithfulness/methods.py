"""The methods that compete in the leaderboard: composites, methods of captum's, and others."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from captum.attr import (
    DeepLift,
    GradientShap,
    InputXGradient,
    IntegratedGradients,
    LayerGradCam,
    LayerGradientXActivation,
    LayerIntegratedGradients,
    NoiseTunnel,
    Occlusion,
    Saliency,
)
from torch import Tensor, nn
from torch.nn import functional as F

import relprop
from benchmarks.faithfulness.cases import Case

NAMED = (
    "zero",
    "epsilon",
    "epsilon_plus",
    "epsilon_plus_flat",
    "epsilon_alpha2_beta1_flat",
    "gamma_flat",
    "gamma_box",
    "excitation_backprop",
)
GAMMAS = (0.05, 0.1, 0.15, 0.25, 0.5)


def box_of(inputs: Tensor) -> relprop.ZBox:
    """A z-box with the bounds observed in each channel; of tables, in each column."""
    axes = [0, *range(2, inputs.ndim)] if inputs.ndim > 2 else [0]
    return relprop.ZBox(inputs.amin(axes, keepdim=True)[0], inputs.amax(axes, keepdim=True)[0])


def of_convolutions(case: Case) -> dict[str, Any]:
    """Gamma on convolutions, behind the first layers that there are."""
    found: dict[str, Any] = {}
    starts = {"": None, " flat": relprop.Flat(), " box": relprop.ZBox(), " observed box": box_of(case.inputs)}
    for gamma in GAMMAS if case.kind == "convolutional" else [one for one in GAMMAS if one != 0.15]:
        rest = {"conv": relprop.Gamma(gamma), "linear": relprop.Epsilon(1e-6)}
        for name, rule in starts.items():
            found[f"gamma {gamma}{name}"] = relprop.Composite({relprop.first: rule, **rest} if rule else rest)
    return found


def of_vision_transformers(case: Case) -> dict[str, Any]:
    """AttnLRP and CP-LRP, with and without a rule for the embedding of patches."""
    found: dict[str, Any] = {name: name for name in ("attnlrp", "cp_lrp", "attnlrp_gamma")}
    starts = {"flat": relprop.Flat(), "box": relprop.ZBox(), "observed box": box_of(case.inputs)}
    for name, rule in starts.items():
        start = relprop.Composite({relprop.first: rule})
        found |= {f"{base} {name}": start | relprop.composites.by_name(base) for base in ("attnlrp", "attnlrp_gamma")}
        for gamma in (0.05, 0.1):
            tuned = relprop.composites.attnlrp_gamma(linear=gamma)
            found[f"attnlrp_gamma {gamma} {name}"] = start | tuned
    return found


def of_dense(case: Case) -> dict[str, Any]:
    """Stabilisers, gammas and first layers of networks without convolutions."""
    found: dict[str, Any] = {}
    for size in (0.01, 0.1, 0.3):
        found[f"relative epsilon {size}"] = relprop.composites.epsilon(size, relative=True)
    for gamma in (0.1, 0.5):
        found[f"gamma {gamma}"] = relprop.Composite({"linear": relprop.Gamma(gamma)})
    start = relprop.Composite({relprop.first: box_of(case.inputs)})
    found["observed box"] = start | relprop.composites.epsilon(0.01, relative=True)
    found["box"] = relprop.Composite({relprop.first: relprop.ZBox()}) | relprop.composites.epsilon(0.01, relative=True)
    return found


def of_gates(case: Case) -> dict[str, Any]:
    """Gates as constants, with what goes along."""
    gates = relprop.Composite({"product": relprop.Gate()})
    return {
        "gates": gates,
        "gates, gamma 0.1": gates | relprop.Composite({"linear": relprop.Gamma(0.1)}),
        "gates, relative epsilon 0.1": gates | relprop.composites.epsilon(0.1, relative=True),
    }


def of_texts(case: Case) -> dict[str, Any]:
    """Rules for the layers and for the attention of transformers."""
    found: dict[str, Any] = {name: name for name in ("attnlrp", "attnlrp_gamma", "cp_lrp", "zero", "epsilon")}
    for size in (0.01, 0.1, 0.3):
        found[f"relative epsilon {size}"] = relprop.composites.epsilon(size, relative=True)
    constant = relprop.Composite({"softmax": relprop.Constant()})
    for size in (0.1, 0.3):
        found[f"attention constant, relative epsilon {size}"] = constant | relprop.composites.epsilon(
            size, relative=True
        )
    for gamma in (0.05, 0.1):
        found[f"gamma {gamma}"] = relprop.Composite({"linear": relprop.Gamma(gamma)})
    return found


def composites_of(case: Case) -> dict[str, Any]:
    """The composites that suit a network."""
    makers: dict[str, Callable[[Case], dict[str, Any]]] = {
        "convolutional": of_convolutions,
        "series": of_convolutions,
        "vision transformer": of_vision_transformers,
        "dense": of_dense,
        "recurrent": lambda case: of_dense(case) | of_gates(case),
        "texts": of_texts,
    }
    named = {} if case.kind == "texts" else {name: name for name in NAMED}
    return {"auto": case.auto, **named, **makers[case.kind](case)}


def of_captum(case: Case) -> dict[str, Any]:
    """Captum's methods. Where one needs a baseline, it is 0: the mean colour of photographs."""
    model, given, zeros = case.model, relprop.evaluate.method, torch.zeros_like(case.inputs[:1])
    found: dict[str, Any] = {
        "Saliency": given(Saliency(model), abs=False),
        "Input x Gradient": InputXGradient(model),
        "IntegratedGradients": given(IntegratedGradients(model), n_steps=32, internal_batch_size=32),
        "GradientShap": given(GradientShap(model), baselines=zeros, n_samples=16, stdevs=0.1),
        "SmoothGrad": given(NoiseTunnel(Saliency(model)), nt_samples=16, stdevs=0.15, abs=False),
    }
    if case.kind in ("convolutional", "dense", "series"):
        found["DeepLift"] = deep_lift(model)
    if case.kind == "convolutional":
        found["GradCAM"] = grad_cam(model, case.last)
        side = dict([case.options["units"]])["patches"]
        shape = case.inputs.shape[1], side, side
        found["Occlusion"] = given(
            Occlusion(model), sliding_window_shapes=shape, strides=shape, perturbations_per_eval=8
        )
    return found


def of_texts_by_captum(case: Case) -> dict[str, Any]:
    """Captum's methods for what is looked up: relevance is summed over the entries of each token's embedding."""
    table = next(module for module in case.model.modules() if isinstance(module, nn.Embedding))

    def score(ids: Tensor, mask: Tensor, wanted: Tensor, other: Tensor | None) -> Tensor:
        output = case.model(input_ids=ids, attention_mask=mask)
        found = output.gather(1, wanted[:, None])[:, 0]
        return found if other is None else found - output.gather(1, other[:, None])[:, 0]

    def more(inputs: Any, targets: Any) -> tuple[Any, ...]:
        contrast = isinstance(targets, relprop.Contrast)
        wanted = torch.as_tensor(targets.positive if contrast else targets).reshape(-1)
        return inputs["attention_mask"], wanted, torch.as_tensor(targets.negative).reshape(-1) if contrast else None

    def input_x_gradient(inputs: Any, targets: Any) -> Any:
        by = LayerGradientXActivation(score, table)
        return {"input_ids": by.attribute(inputs["input_ids"], additional_forward_args=more(inputs, targets)).sum(-1)}

    def integrated_gradients(inputs: Any, targets: Any) -> Any:
        by, ids = LayerIntegratedGradients(score, table), inputs["input_ids"]
        found = by.attribute(
            ids,
            torch.zeros_like(ids),
            additional_forward_args=more(inputs, targets),
            n_steps=16,
            internal_batch_size=16,
        )
        return {"input_ids": found.sum(-1)}

    return {"Input x Gradient": input_x_gradient, "IntegratedGradients": integrated_gradients}


class SplitReLU6(nn.Module):
    """`relu6(x) = relu(x) - relu(x - 6)`, in modules that captum's DeepLift knows."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high = nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.low(x) - self.high(x - 6)


def deep_lift(model: nn.Module) -> Any:
    """DeepLift; where there are ReLU6, of a copy without them. A copy's passes are not counted."""
    if not any(isinstance(module, nn.ReLU6) for module in model.modules()):
        return DeepLift(model)
    twin = copy.deepcopy(model)
    for name, module in list(twin.named_modules()):
        if isinstance(module, nn.ReLU6):
            parent, _, own = name.rpartition(".")
            setattr(twin.get_submodule(parent), own, SplitReLU6())

    def DeepLift_(inputs: Tensor, targets: Any) -> Tensor:
        return DeepLift(twin).attribute(inputs, target=torch.as_tensor(targets))

    return DeepLift_


def grad_cam(model: nn.Module, layer: nn.Module) -> Callable[..., Tensor]:
    """GradCAM at the last convolution, enlarged to the picture."""

    def GradCAM(inputs: Tensor, targets: Any) -> Tensor:
        small = LayerGradCam(model, layer).attribute(inputs, target=torch.as_tensor(targets))
        return F.interpolate(small, inputs.shape[2:], mode="bilinear", align_corners=False)

    return GradCAM

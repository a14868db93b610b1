"""Checkpointing: ours on request and the model's own; what is computed again sees the same rules."""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import relprop
import sequences
from helpers import close_to_rounding as close
from relprop.errors import RelpropWarning


def nested(layer: nn.Module, h: Tensor) -> Tensor:
    return checkpoint(lambda h: checkpoint(layer, h.clone(), use_reentrant=False).clone(), h, use_reentrant=False)


def in_two(layer: nn.Module, h: Tensor) -> Tensor:
    return checkpoint_sequential(nn.Sequential(layer, nn.Identity()), 2, h, use_reentrant=False)


WAYS: dict[str, Callable[..., Tensor]] = {
    "plain": partial(checkpoint, use_reentrant=False),
    "to its end": partial(checkpoint, use_reentrant=False, early_stop=False),
    "random state left": partial(checkpoint, use_reentrant=False, preserve_rng_state=False),
    "unchecked": partial(checkpoint, use_reentrant=False, determinism_check="none"),
    "nested": nested,
    "sequential": in_two,
}


class Stack(nn.Module):
    def __init__(self, depth: int = 3, own: bool | Callable[..., Tensor] = False):
        super().__init__()
        self.embed = nn.Linear(6, 16)
        self.layers = nn.ModuleList(sequences.Decoder() for _ in range(depth))
        self.head = nn.Linear(16, 5)
        self.own = own

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        for layer in self.layers:
            h = (WAYS["plain"] if self.own is True else self.own)(layer, h) if self.own else layer(h)
        return self.head(h)[:, -1]


def stacks() -> tuple[Stack, Stack]:
    plain, own = Stack().double().eval(), Stack(own=True).double().eval()
    own.load_state_dict(plain.state_dict())
    return plain, own


@pytest.mark.parametrize("composite", ["auto", "attnlrp", "epsilon_plus_flat", "gradient"])
@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_whatever_the_way(way: str, again: bool, composite: str) -> None:
    """Also under a checkpoint of ours around it."""
    plain, _ = stacks()
    own = Stack(own=WAYS[way]).double().eval()
    own.load_state_dict(plain.state_dict())
    x = torch.randn(2, 5, 6).double()
    found = relprop.attribute(own, x, 3, composite=composite, checkpoint=again)
    expected = relprop.attribute(plain, x, 3, composite=composite)
    torch.testing.assert_close(found.values, expected.values, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("strict", [True, False])
def test_reentrant_is_refused_with_what_to_write(strict: bool) -> None:
    model = Stack(own=partial(checkpoint, use_reentrant=True)).eval()
    with pytest.raises(RuntimeError, match="use_reentrant=False"):
        relprop.attribute(model, torch.randn(2, 5, 6), 3, strict=strict)


def test_what_is_kept_may_lie_elsewhere() -> None:
    plain, own = stacks()
    x = torch.randn(2, 5, 6).double()
    expected = relprop.attribute(plain, x, 3, composite="attnlrp").values
    for model in (plain, own):
        with torch.autograd.graph.save_on_cpu():
            close(relprop.attribute(model, x, 3, composite="attnlrp").values, expected)


@pytest.mark.parametrize("composite", ["auto", "attnlrp", "epsilon_plus_flat"])
def test_relevance_can_be_differentiated(composite: str) -> None:
    """The arithmetic of a rule in a backward pass that is recorded is not a part of the model that runs again."""
    found = []
    for model in stacks():
        x = torch.linspace(-1, 1, 60).double().reshape(2, 5, 6).requires_grad_()
        with sdpa_kernel(SDPBackend.MATH), relprop.propagate(composite):  # the fused kernels have one derivative only
            (first,) = torch.autograd.grad(model(x)[:, 3].sum(), x, create_graph=True)
            with pytest.warns(RelpropWarning, match="differentiated"):
                (second,) = torch.autograd.grad(first.square().sum(), x)
        found.append((first.detach(), second))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    assert found[0][1].abs().sum() > 0


COMPOSITES = ["auto", "attnlrp", "cp_lrp", "attnlrp_gamma", "epsilon", "epsilon_plus_flat", "gradient"]


@pytest.mark.parametrize("composite", COMPOSITES)
def test_the_models_own(composite: str) -> None:
    plain, own = stacks()
    x = torch.randn(2, 5, 6).double()
    close(*(relprop.attribute(model, x, 3, composite=composite).values for model in (plain, own)))


@pytest.mark.parametrize("composite", COMPOSITES)
def test_on_request(composite: str) -> None:
    plain, _ = stacks()
    x = torch.randn(2, 5, 6).double()
    found, expected = (relprop.attribute(plain, x, 3, composite=composite, checkpoint=c) for c in (True, False))
    close(found.values, expected.values)
    close(found.residual, expected.residual)


@pytest.mark.parametrize("own", [False, True])
def test_with_nothing_remembered_from_earlier_calls(own: bool) -> None:
    """The expansion of an activation at 0 is computed once: in the first pass, not in the second."""
    from relprop.operations import secants

    model, x = stacks()[own], torch.randn(2, 5, 6).double()
    secants._remembered.cache_clear()
    relprop.attribute(model, x, 3, composite="attnlrp", checkpoint=not own)


def test_several_targets_and_layers() -> None:
    plain, _ = stacks()
    x = torch.randn(2, 5, 6).double()
    some, others = (
        relprop.attribute_each(plain, x, [0, 3], layers="layers.?", checkpoint=c) for c in (["layers.*"], False)
    )
    for a, b in zip(some, others, strict=True):
        close(a.values, b.values)
        for name in b.layers:
            close(a.layers[name], b.layers[name])


def test_inside_propagate() -> None:
    plain, own = stacks()
    x = torch.randn(2, 5, 6).double().requires_grad_()
    with relprop.propagate("attnlrp"):
        (gradient,) = torch.autograd.grad(own(x)[:, 3].sum(), x)
    close((x * gradient).detach(), relprop.attribute(plain, x, 3, composite="attnlrp").values)


def test_less_is_kept() -> None:
    """Counted, not timed: bytes that autograd holds between the passes."""

    def held(**options: bool) -> int:
        total = 0

        def pack(t: Tensor) -> Tensor:
            nonlocal total
            total += t.numel() * t.element_size()
            return t

        model, x = Stack(depth=6).eval().requires_grad_(False), torch.randn(2, 5, 6)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            relprop.attribute(model, x, 3, composite="attnlrp", **options)  # type: ignore[arg-type]
        return total

    assert held(checkpoint=True) < 0.2 * held()


@pytest.mark.parametrize("composite", ["auto", "attnlrp", "cp_lrp", "epsilon", "attnlrp_gamma"])
def test_nothing_else_is_held(composite: str) -> None:
    """Tensors that Python still knows at the end of the forward pass: what rules remember must not outlive its use."""

    def held(depth: int) -> int:
        model, x = Stack(depth).eval().requires_grad_(False), torch.randn(2, 5, 6)
        fixed = {t.untyped_storage().data_ptr() for t in model.state_dict().values()}
        sizes: dict[int, int] = {}

        def target(y: Tensor) -> Tensor:
            gc.collect()
            for thing in gc.get_objects():
                if type(thing) is Tensor and thing.untyped_storage().data_ptr() not in fixed:
                    sizes[thing.untyped_storage().data_ptr()] = thing.untyped_storage().nbytes()
            return y[:, 3]

        relprop.attribute(model, x, target, composite=composite, checkpoint=True)
        return sum(sizes.values())

    block = 2 * 5 * 16 * 4  # what enters a block: samples, steps, features, bytes
    assert held(12) - held(4) <= 8 * 1.5 * block


def test_a_block_with_a_memory_is_refused() -> None:
    class Remembering(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.seen = nn.Linear(4, 4), []

        def forward(self, x: Tensor) -> Tensor:
            self.seen.append(x)
            return torch.tanh(self.inner(torch.cat(self.seen))[-len(x) :])

    model = nn.Sequential(*(nn.Sequential(Remembering()) for _ in range(2)))
    with pytest.raises(relprop.errors.UnsupportedOperationError, match="cache"):
        relprop.attribute(model, torch.randn(2, 4), 0, checkpoint=True)


def test_a_model_without_blocks() -> None:
    with pytest.raises(relprop.errors.InputError, match="path"):
        relprop.attribute(nn.Linear(4, 3), torch.randn(2, 4), 0, checkpoint=True)


def test_an_error_inside_leaves_nothing_behind() -> None:
    class Failing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            raise KeyError("broken")

    model = nn.Sequential(nn.Sequential(nn.Linear(4, 4)), Failing())
    with pytest.raises(KeyError, match="broken"):
        relprop.attribute(model, torch.randn(2, 4), 0, checkpoint=True)
    assert torch._C._autograd._top_saved_tensors_default_hooks(True) is None
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())

"""Models as they are run: offloaded, sharded, wrapped, quantised, parametrised. The map is the plain model's."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relprop
import sequences
from relprop.errors import InputError, ModelStateError

close = partial(torch.testing.assert_close, rtol=1e-6, atol=1e-7)

X = torch.linspace(-1, 1, 2 * 5 * 16).reshape(2, 5, 16).sin()
TARGET = (4, 3)


def plain() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 16), *(sequences.Decoder() for _ in range(2)), nn.Linear(16, 16)).eval()


def state(model: nn.Module) -> dict[str, tuple[Any, ...]]:
    """What must be as before: every parameter's class, place, whether it is trained, its gradient and its numbers."""
    return {
        name: (type(p), p.device, p.requires_grad, p.grad, None if p.is_meta else p.detach().clone())
        for name, p in model.named_parameters()
    }


def same(before: dict[str, tuple[Any, ...]], after: dict[str, tuple[Any, ...]]) -> None:
    assert before.keys() == after.keys()
    for name, (*kind, numbers) in before.items():
        *others, found = after[name]
        assert kind == others, name
        assert (numbers is None) == (found is None) and (numbers is None or torch.equal(numbers, found)), name


def agrees(model: nn.Module, expected: relprop.Relevance, **options: Any) -> None:
    """The map of the model as it is run, and the model is as it was."""
    before = state(model)
    found = relprop.attribute(model, X, TARGET, composite="attnlrp", **options)
    close(found.values, expected.values)
    close(found.output, expected.output)
    assert not found.unknown
    same(before, state(model))


@pytest.fixture(scope="module")
def expected() -> relprop.Relevance:
    return relprop.attribute(plain(), X, TARGET, composite="attnlrp")


# ---------------------------------------------------------------------------------------------------- device_map, accelerate


def whole(model: nn.Module, folder: Path) -> nn.Module:
    from accelerate import dispatch_model

    return dispatch_model(model, {"": "cpu"}, force_hooks=True)


def in_two_places(model: nn.Module, folder: Path) -> nn.Module:
    from accelerate import dispatch_model

    places = {"0": "cpu", "1": "disk", "2": "cpu", "3": "disk"}
    return dispatch_model(model, places, main_device="cpu", offload_dir=folder, force_hooks=True)


def to_cpu(model: nn.Module, folder: Path) -> nn.Module:
    from accelerate import cpu_offload

    return cpu_offload(model, execution_device="cpu")


def to_disk(model: nn.Module, folder: Path) -> nn.Module:
    from accelerate import disk_offload

    return disk_offload(model, folder, execution_device="cpu")


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("offload", [whole, in_two_places, to_cpu, to_disk])
def test_weights_that_come_and_go(
    offload: Callable[[nn.Module, Path], nn.Module], frozen: bool, checkpoint: bool, tmp_path: Path,
    expected: relprop.Relevance,
) -> None:  # fmt: skip
    """Accelerate loads a module's weights when it runs and drops them after: none is missed in the backward pass."""
    pytest.importorskip("accelerate")
    model = offload(plain().requires_grad_(not frozen), tmp_path)
    assert offload is whole or any(p.is_meta for p in model.parameters())
    agrees(model, expected, checkpoint=["1", "2"] if checkpoint else False)


def test_a_device_map_of_transformers(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4
    )
    ids = torch.tensor([[5, 17, 3, 42, 8]])
    saved = transformers.LlamaForCausalLM(config).eval()
    saved.save_pretrained(tmp_path / "model")
    wanted = relprop.attribute(saved, ids, (-1, 7)).values
    rest = dict.fromkeys(["model.embed_tokens", "model.layers.0", "model.norm", "model.rotary_emb", "lm_head"], "cpu")
    for places in ({"": "cpu"}, rest | {"model.layers.1": "disk"}):
        model = transformers.AutoModelForCausalLM.from_pretrained(
            tmp_path / "model", device_map=places, offload_folder=tmp_path / "weights"
        ).eval()
        close(relprop.attribute(model, ids, (-1, 7)).values, wanted)


def test_numbers_must_be_there() -> None:
    with pytest.raises(InputError, match="device meta"):
        relprop.attribute(nn.Linear(4, 3), torch.randn(2, 4, device="meta"), 0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 3, device="meta"))
    with pytest.raises(ModelStateError, match=r"'1\.weight' is on device meta"):
        relprop.attribute(model, torch.randn(2, 4), 0)


def test_a_parameter_stays_one() -> None:
    """`p.to(p.device)` is `p`: a module that puts it back keeps a parameter."""

    class Moving(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 4))

        def forward(self, x: Tensor) -> Tensor:
            self.weight = self.weight.to(x.device).contiguous().requires_grad_()
            return nn.functional.linear(x, self.weight)

    model = Moving()
    before = model.weight
    relprop.attribute(model, torch.randn(2, 4), 0)
    assert model.weight is before and isinstance(model.weight, nn.Parameter)


# ------------------------------------------------------------------------------------------------------ several processes


@pytest.fixture(scope="module")
def alone() -> Iterator[Any]:
    """A group of one process."""
    sharded = pytest.importorskip("sharded")
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("needs torch.distributed with gloo")
    with sharded.processes(0, 1, torch.distributed.HashStore()) as mesh:
        yield mesh


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("composite", ["attnlrp", "epsilon_plus_flat"])
@pytest.mark.parametrize(
    "way", ["fully_shard", "fully_shard, weights kept", "fully_shard, frozen", "data parallel", "tensor parallel"]
)
def test_sharded(way: str, composite: str, checkpoint: bool, alone: Any) -> None:
    import sharded

    if way == "tensor parallel" and checkpoint:
        pytest.skip("a model of one block")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of what is new or late
        sharded.compare(way, composite, checkpoint, alone)


@pytest.mark.slow
def test_two_processes(tmp_path: Path) -> None:
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("needs torch.distributed with gloo")
    here = Path(__file__).parent
    path = os.pathsep.join([str(here.parent / "src"), str(here)])
    running = [
        subprocess.Popen(
            [sys.executable, here / "sharded.py", str(rank), "2", tmp_path / "store"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "PYTHONPATH": path},
        )
        for rank in range(2)
    ]  # fmt: skip
    for process in running:
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0 and "25 maps agree" in said, said


def test_replicas() -> None:
    """On a machine without accelerators DataParallel is the module itself."""
    expected = relprop.attribute(plain(), X, TARGET, composite="attnlrp")
    model = nn.DataParallel(plain())
    before = state(model)
    close(relprop.attribute(model, X, TARGET, composite="attnlrp").values, expected.values)
    same(before, state(model))

"""Models as they are run: offloaded, sharded, wrapped, quantised, parametrised. The map is the plain model's."""

from __future__ import annotations

import copy
import gc
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
from torch.nn.utils import parametrize, prune

import relprop
import sequences
from relprop.errors import InputError, ModelStateError, UnsupportedOperationError

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


def test_weights_that_left_are_not_held(tmp_path: Path) -> None:
    """With checkpoints a model may be larger than the memory it runs in: its depth costs what enters its blocks."""
    pytest.importorskip("accelerate")
    x = torch.randn(1, 3, 16)

    def stored() -> dict[int, int]:
        gc.collect()
        things = [t for t in gc.get_objects() if type(t) in (Tensor, nn.Parameter) and not t.is_meta]
        return {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in things}

    def held(depth: int) -> int:
        others = stored()
        blocks = [sequences.Decoder() for _ in range(depth)]
        model = to_disk(nn.Sequential(nn.Linear(16, 16), *blocks).eval(), tmp_path / str(depth))
        sizes: dict[int, int] = {}

        def target(y: Tensor) -> Tensor:
            sizes.update({memory: size for memory, size in stored().items() if memory not in others})
            return y[:, -1, 3]

        names = [str(n + 1) for n in range(depth)]
        relprop.attribute(model, x, target, composite="attnlrp", checkpoint=names)
        return sum(sizes.values())

    assert held(12) - held(4) <= 8 * 1.5 * x.numel() * x.element_size()


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


def test_a_map_of_a_sharded_model_can_be_kept(alone: Any, tmp_path: Path) -> None:
    """Without the hash of the weights, which are not all in one place."""
    import sharded

    pytest.importorskip("safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = sharded.sharded(sharded.decoders(), alone)
        relprop.attribute(model, X, TARGET, composite="attnlrp").save(tmp_path / "kept")
    assert relprop.load(tmp_path / "kept").model.weights_sha256 is None


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


# ------------------------------------------------------------------------------------------------- weights in other clothes


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 4)).eval()


def cnn() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.Flatten(), nn.Linear(12, 4)).eval()


INPUTS = {mlp: torch.linspace(-2, 2, 24).reshape(3, 8).cos(), cnn: torch.linspace(-9, 9, 216).reshape(3, 2, 6, 6).cos()}


class Bounded(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight.tanh()


class Low(nn.Module):
    """A low-rank change of a weight, as a parametrisation."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        flat = weight.flatten(1)
        self.a, self.b = nn.Parameter(torch.randn(flat.shape[0], 2)), nn.Parameter(torch.randn(2, flat.shape[1]))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + 0.1 * (self.a @ self.b).reshape(weight.shape)


def old_weight_norm(layer: nn.Module) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        nn.utils.weight_norm(layer)


CLOTHES: dict[str, Callable[[Any], Any]] = {
    "weight_norm": nn.utils.parametrizations.weight_norm,
    "weight_norm of old": old_weight_norm,
    "spectral_norm": nn.utils.parametrizations.spectral_norm,
    "spectral_norm of old": nn.utils.spectral_norm,
    "pruned": lambda layer: prune.l1_unstructured(layer, "weight", amount=0.4),
    "bounded": lambda layer: parametrize.register_parametrization(layer, "weight", Bounded()),
    "low rank": lambda layer: parametrize.register_parametrization(layer, "weight", Low(layer.weight)),
}


def undressed(model: nn.Sequential) -> nn.Sequential:
    """Plain layers with the weights that act."""
    plain = [copy.deepcopy(m) for m in (mlp if len(model[0].weight.shape) == 2 else cnn)()]
    for mine, other in zip(plain, model, strict=True):
        if hasattr(mine, "weight"):
            mine.weight.data, mine.bias.data = other.weight.detach().clone(), other.bias.detach().clone()
    return nn.Sequential(*plain).eval()


@pytest.mark.parametrize("composite", ["attnlrp", "epsilon", "epsilon_plus_flat"])
@pytest.mark.parametrize("made", [mlp, cnn])
@pytest.mark.parametrize("name", CLOTHES)
def test_weights_that_are_computed(name: str, made: Callable[[], nn.Sequential], composite: str) -> None:
    model, x = made(), INPUTS[made]
    for layer in model:
        if hasattr(layer, "weight"):
            CLOTHES[name](layer)
    model.eval()(x)
    before = copy.deepcopy(model.state_dict())
    expected = relprop.attribute(undressed(model), x, 1, composite=composite)
    found = relprop.attribute(model, x, 1, composite=composite)
    close(found.values, expected.values)
    with parametrize.cached():
        close(relprop.attribute(model, x, 1, composite=composite).values, expected.values)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


class Adapted(nn.Module):
    """A linear layer beside a low-rank one, as adapters do it."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.a, self.b = nn.Parameter(torch.randn(base.in_features, 2)), nn.Parameter(torch.randn(2, base.out_features))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + x @ self.a @ self.b * 0.5

    def merged(self) -> nn.Linear:
        layer = copy.deepcopy(self.base)
        layer.weight.data += 0.5 * (self.a @ self.b).T.detach()
        return layer


def test_an_adapter_is_as_good_as_merged() -> None:
    """Where the rule is linear in the weights; others see two layers, as there are."""
    model = nn.Sequential(*(Adapted(m) if isinstance(m, nn.Linear) else m for m in mlp())).double().eval()
    merged = nn.Sequential(*(m.merged() if isinstance(m, Adapted) else m for m in model)).eval()
    x = INPUTS[mlp].double()
    for composite in ("attnlrp", "cp_lrp", "gradient"):
        found, expected = (relprop.attribute(m, x, 1, composite=composite) for m in (model, merged))
        torch.testing.assert_close(found.values, expected.values, rtol=1e-9, atol=1e-12)


# ------------------------------------------------------------------------------------------------------------- quantised


def dynamically(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces that this will move
        return torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=dtype)


@pytest.mark.parametrize("composite", ["attnlrp", "epsilon_plus_flat", "gradient"])
@pytest.mark.parametrize("dtype", [torch.qint8, torch.float16])
def test_a_dynamically_quantised_layer(dtype: torch.dtype, composite: str) -> None:
    """The model's own output; the relevance of the layer whose weights the quantised ones stand for."""
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        pytest.skip("needs quantised kernels")
    x = INPUTS[mlp]
    model = dynamically(nn.Sequential(mlp()[0]), dtype)
    layer = nn.Linear(8, 16)
    weight = model[0].weight()
    layer.weight.data, layer.bias.data = weight.dequantize() if weight.is_quantized else weight, model[0].bias()
    found, expected = (relprop.attribute(m, x, 3, composite=composite) for m in (model, nn.Sequential(layer)))
    assert torch.equal(found.output, model(x))
    close(found.values, expected.values)


@pytest.mark.parametrize("dtype", [torch.qint8, torch.float16])
def test_a_dynamically_quantised_model_is_close(dtype: torch.dtype) -> None:
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        pytest.skip("needs quantised kernels")
    model = dynamically(mlp(), dtype)
    found, exact = (relprop.attribute(m, INPUTS[mlp], 1, composite="attnlrp").values for m in (model, mlp()))
    assert nn.functional.cosine_similarity(found.flatten(), exact.flatten(), 0) > 0.99


class Rounded(Tensor):
    """A weight in 8 bits, by the interface of torchao's: a class of its own that linear knows, with dequantize."""

    numbers: Tensor
    scale: Tensor

    @staticmethod
    def __new__(cls, weight: Tensor) -> Rounded:
        self = Tensor._make_wrapper_subclass(cls, weight.shape, dtype=weight.dtype)
        self.scale = weight.abs().amax(1, keepdim=True) / 127
        self.numbers = (weight / self.scale).round().to(torch.int8)
        return self

    def dequantize(self) -> Tensor:  # type: ignore[override]
        return self.numbers.float() * self.scale

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func is torch.ops.aten.detach.default:
            return args[0]
        raise NotImplementedError(func)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func is nn.functional.linear:  # a kernel that knows no gradient
            x, weight, bias = args
            with torch.no_grad():
                return x @ weight.dequantize().T + bias
        return super().__torch_function__(func, types, args, kwargs or {})


@pytest.mark.parametrize("composite", ["attnlrp", "epsilon", "epsilon_plus_flat"])
def test_weights_of_a_class_of_their_own(composite: str) -> None:
    model, exact = mlp(), mlp()
    for mine, other in zip(model, exact, strict=True):
        if isinstance(mine, nn.Linear):
            rounded = Rounded(mine.weight.detach())
            mine.weight = nn.Parameter(rounded, requires_grad=False)
            other.weight.data = rounded.dequantize()
    found, expected = (relprop.attribute(m, INPUTS[mlp], 1, composite=composite) for m in (model, exact))
    close(found.values, expected.values)


def test_static_quantisation_is_refused() -> None:
    def model(x: Tensor) -> Tensor:
        return torch.quantize_per_tensor(x, 0.1, 0, torch.qint8).dequantize()

    with pytest.raises(UnsupportedOperationError, match="explain the model they were made from"):
        relprop.attribute(model, torch.randn(2, 4), 0)


# --------------------------------------------------------------------------------------------------------- low precision


class Mixed(nn.Module):
    """The blocks in bfloat16, the rest as it is: the model casts by itself."""

    def __init__(self, own: bool = False, dtype: torch.dtype | None = torch.bfloat16) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head = nn.Linear(16, 16), nn.Linear(16, 5)
        self.layers = nn.ModuleList(sequences.Decoder() for _ in range(3))
        self.own, self.dtype = own, dtype
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        with torch.autocast("cpu", dtype=self.dtype, enabled=self.dtype is not None):
            for layer in self.layers:
                h = torch.utils.checkpoint.checkpoint(layer, h, use_reentrant=False) if self.own else layer(h)
        return self.head(h.float())[:, -1]


def near(found: Tensor, exact: Tensor) -> None:
    """As measured on models of this size, with room: a hundredth of the largest share, and one direction."""
    assert torch.isfinite(found).all()
    found, exact = found.double(), exact.double()
    assert (found - exact).abs().max() <= 0.01 * exact.abs().max()
    assert nn.functional.cosine_similarity(found.flatten(), exact.flatten(), 0) > 0.999


@pytest.mark.parametrize("composite", ["auto", "attnlrp", "cp_lrp", "epsilon_plus_flat"])
@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("own", [False, True])
def test_a_model_that_casts_by_itself(own: bool, checkpoint: bool, composite: str) -> None:
    """What is computed again is so in the precision of the first time: bfloat16 saves what float32 did not."""
    exact = relprop.attribute(Mixed(dtype=None), X, 3, composite=composite).values
    mixed = relprop.attribute(Mixed(), X, 3, composite=composite).values
    near(mixed, exact)
    found = relprop.attribute(Mixed(own), X, 3, composite=composite, checkpoint=checkpoint)
    torch.testing.assert_close(found.values, mixed, rtol=1e-5, atol=1e-5 * mixed.abs().max().item())


@pytest.mark.parametrize("composite", ["auto", "attnlrp", "cp_lrp", "epsilon", "epsilon_plus_flat"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_around_the_call(dtype: torch.dtype, composite: str) -> None:
    model = Mixed(dtype=None)
    exact = relprop.attribute(model, X, 3, composite=composite).values
    model.dtype = dtype
    model = nn.Sequential(model)  # the context inside is the one outside
    with torch.autocast("cpu", dtype=dtype):
        first, again = (relprop.attribute(model, X, 3, composite=composite) for _ in range(2))
        with torch.no_grad():
            assert torch.equal(first.output, model(X))
    near(first.values, exact)
    assert torch.equal(first.values, again.values)
    assert all(p.dtype == torch.float32 for p in model.parameters())


@pytest.mark.parametrize("composite", ["attnlrp", "cp_lrp"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_language_model_in_half_precision(dtype: torch.dtype, composite: str) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=50, hidden_size=64, intermediate_size=96, num_hidden_layers=4, num_attention_heads=4
    )
    model = transformers.LlamaForCausalLM(config).eval()
    ids = torch.tensor([[5, 17, 3, 42, 8, 9, 11], [8, 4, 23, 19, 7, 3, 2]])
    exact = relprop.attribute(model, ids, (-1, 7), composite=composite).values
    with torch.autocast("cpu", dtype=dtype):
        near(relprop.attribute(model, ids, (-1, 7), composite=composite).values, exact)
    first, again = (relprop.attribute(model.to(dtype), ids, (-1, 7), composite=composite).values for _ in range(2))
    near(first, exact)
    assert torch.equal(first, again)

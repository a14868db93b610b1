"""Every operation gives the same map in all of its spellings, and its forward value is the model's own."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import relprop

Function = Callable[..., Any]


class Written(nn.Module):
    """A function of two hidden tensors, each behind a layer so that writing in place disturbs no input."""

    def __init__(self, function: Function, operands: int):
        super().__init__()
        self.function, self.operands = function, operands
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.last = nn.LazyLinear(2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = [layer(x) for layer in (self.first, self.second)[: self.operands]]
        y = self.function(*hidden)
        return self.last(y.flatten(1))


def applied_in_place(name: str, *rest: Any) -> Function:
    """`h.name_(...)` for its effect, its return value ignored."""

    def function(h: Tensor, *others: Tensor) -> Tensor:
        getattr(h, name)(*others, *rest)
        return h

    return function


def called_in_place(function: Function) -> Function:
    """`function(h, inplace=True)`, its return value ignored."""

    def call(h: Tensor) -> Tensor:
        function(h, inplace=True)
        return h

    return call


def inplace_operator(function: Function) -> Function:
    def call(h: Tensor, *others: Any) -> Tensor:
        kept = h
        result = function(h, *others)
        assert result is kept
        return result

    return call


def one(name: str, *rest: Any, module: nn.Module | None = None, functional: bool = True) -> dict[str, Function]:
    """The usual spellings of an elementwise function of one tensor."""
    spellings: dict[str, Function] = {}
    if hasattr(torch, name):
        spellings["torch"] = lambda h: getattr(torch, name)(h, *rest)
    if hasattr(torch, name + "_") and not rest:
        spellings["torch, in place"] = lambda h: getattr(torch, name + "_")(h)
    if hasattr(Tensor, name):
        spellings["method"] = lambda h: getattr(h, name)(*rest)
    if hasattr(Tensor, name + "_"):
        spellings["method in place"] = applied_in_place(name + "_", *rest)
    if functional and hasattr(F, name):
        spellings["functional"] = lambda h: getattr(F, name)(h, *rest)
    if module is not None:
        spellings["module"] = module
        if hasattr(module, "inplace"):
            there = type(module)(*rest, inplace=True)
            spellings["module in place"] = there
            spellings["functional in place"] = called_in_place(
                lambda h, inplace: getattr(F, name)(h, *rest, inplace=inplace)
            )
    return spellings


def two(name: str, symbol: str | None = None) -> dict[str, Function]:
    """The usual spellings of an operation on two tensors."""
    spellings: dict[str, Function] = {
        "torch": lambda a, b: getattr(torch, name)(a, b),
        "method": lambda a, b: getattr(a, name)(b),
        "keyword": lambda a, b: getattr(torch, name)(a, other=b),
    }
    if hasattr(Tensor, name + "_"):
        spellings["method in place"] = applied_in_place(name + "_")
    if symbol:
        spellings["operator"] = lambda a, b: getattr(operator, symbol)(a, b)
        spellings["reflected"] = lambda a, b: getattr(Tensor, f"__r{symbol}__")(b, a)
        spellings["operator in place"] = inplace_operator(lambda a, b: getattr(operator, f"i{symbol}")(a, b))
    return spellings


CONSTANT = torch.tensor([1.5, -2.0, 0.5, 3.0])

# How many hidden tensors an operation takes, and its spellings; the first is what the others must equal.
OPERATIONS: dict[str, tuple[int, dict[str, Function]]] = {
    "relu": (
        1,
        one("relu", module=nn.ReLU()) | {"clamp": lambda h: h.clamp(min=0), "clamp_min": lambda h: h.clamp_min(0)},
    ),
    "relu6": (1, one("relu6", module=nn.ReLU6()) | {"hardtanh": lambda h: F.hardtanh(h, 0.0, 6.0)}),
    "leaky_relu": (1, one("leaky_relu", 0.2, module=nn.LeakyReLU(0.2))),
    "elu": (1, one("elu", 0.7, module=nn.ELU(0.7))),
    "selu": (1, one("selu", module=nn.SELU())),
    "celu": (1, one("celu", 0.7, module=nn.CELU(0.7))),
    "gelu": (1, one("gelu", module=nn.GELU())),
    "silu": (1, one("silu", module=nn.SiLU())),
    "mish": (1, one("mish", module=nn.Mish())),
    "hardswish": (1, one("hardswish", module=nn.Hardswish())),
    "hardsigmoid": (1, one("hardsigmoid", module=nn.Hardsigmoid())),
    "hardtanh": (1, one("hardtanh", -0.5, 0.5, module=nn.Hardtanh(-0.5, 0.5))),
    "softplus": (1, one("softplus", module=nn.Softplus())),
    "softsign": (1, one("softsign", module=nn.Softsign())),
    "tanhshrink": (1, one("tanhshrink", module=nn.Tanhshrink())),
    "logsigmoid": (1, one("logsigmoid", module=nn.LogSigmoid())),
    "prelu": (
        1,
        one("prelu", torch.tensor([0.1])) | {"module": lambda h: F.prelu(h, weight=torch.tensor([0.1]))},
    ),
    "tanh": (1, one("tanh", module=nn.Tanh(), functional=False)),
    "sigmoid": (1, one("sigmoid", module=nn.Sigmoid(), functional=False) | {"special": torch.special.expit}),
    "exp": (1, one("exp")),
    "sin": (1, one("sin")),
    "erf": (1, one("erf") | {"special": torch.special.erf}),
    "abs": (1, one("abs") | {"absolute": torch.absolute, "operator": abs}),
    "square": (
        1,
        one("square") | {"pow": lambda h: h.pow(2), "operator": lambda h: h**2, "torch.pow": lambda h: torch.pow(h, 2)},
    ),
    "clamp": (
        1,
        one("clamp", -0.5, 0.5)
        | {"clip": lambda h: torch.clip(h, -0.5, 0.5), "keywords": lambda h: h.clamp(min=-0.5, max=0.5)},
    ),
    "neg": (1, one("neg") | {"operator": operator.neg, "negative": torch.negative}),
    "add": (2, two("add", "add")),
    "sub": (2, two("sub", "sub") | {"subtract": torch.subtract}),
    "mul": (2, two("mul", "mul") | {"multiply": torch.multiply}),
    "div": (2, two("div", "truediv") | {"divide": torch.divide, "true_divide": torch.true_divide}),
    "maximum": (
        2,
        {"torch": torch.maximum, "method": lambda a, b: a.maximum(b), "max": torch.max, "fmax": torch.fmax},
    ),
    "minimum": (2, {"torch": torch.minimum, "method": lambda a, b: a.minimum(b), "min": torch.min}),
    "add a constant": (
        1,
        {
            "operator": lambda h: h + CONSTANT,
            "reflected": lambda h: CONSTANT + h,
            "torch": lambda h: torch.add(h, CONSTANT),
            "method": lambda h: h.add(CONSTANT),
            "in place": applied_in_place("add_", CONSTANT),
            "iadd": inplace_operator(lambda h: operator.iadd(h, CONSTANT)),
            "alpha": lambda h: torch.add(h, CONSTANT / 2, alpha=2),
        },
    ),
    "subtract from a constant": (
        1,
        {
            "operator": lambda h: CONSTANT - h,
            "torch": lambda h: torch.sub(CONSTANT, h),
            "rsub": lambda h: torch.rsub(h, CONSTANT),
            "reflected": lambda h: h.__rsub__(CONSTANT),
        },
    ),
    "scale by a number": (
        1,
        {
            "operator": lambda h: h * 0.5,
            "reflected": lambda h: 0.5 * h,
            "quotient": lambda h: h / 2,
            "torch": lambda h: torch.mul(h, 0.5),
            "method": lambda h: h.div(2.0),
            "in place": applied_in_place("mul_", 0.5),
            "imul": inplace_operator(lambda h: operator.imul(h, 0.5)),
            "itruediv": inplace_operator(lambda h: operator.itruediv(h, 2)),
        },
    ),
    "matmul": (
        2,
        {
            "operator": lambda a, b: a[:, :, None] @ b[:, None, :],
            "torch": lambda a, b: torch.matmul(a[:, :, None], b[:, None, :]),
            "method": lambda a, b: a[:, :, None].matmul(b[:, None, :]),
            "reflected": lambda a, b: b[:, None, :].__rmatmul__(a[:, :, None]),
            "bmm": lambda a, b: torch.bmm(a[:, :, None], b[:, None, :]),
            "method bmm": lambda a, b: a[:, :, None].bmm(b[:, None, :]),
            "einsum": lambda a, b: torch.einsum("bi,bj->bij", a, b),
            "product": lambda a, b: a[:, :, None] * b[:, None, :],
        },
    ),
    "linear": (
        1,
        {
            "functional": lambda h: F.linear(h, WEIGHT),
            "matmul": lambda h: torch.matmul(h, WEIGHT.t()),
            "operator": lambda h: h @ WEIGHT.T,
            "mm": lambda h: torch.mm(h, WEIGHT.t()),
            "method mm": lambda h: h.mm(WEIGHT.t()),
            "reflected": lambda h: (WEIGHT @ h.t()).t(),
            "addmm": lambda h: torch.addmm(torch.zeros(3), h, WEIGHT.t()),
            "einsum": lambda h: torch.einsum("bi,oi->bo", h, WEIGHT),
            "conv": lambda h: F.conv1d(h[:, :, None], WEIGHT[:, :, None])[:, :, 0],
        },
    ),
    "sum": (
        1,
        {
            "method": lambda h: h.sum(1, keepdim=True),
            "torch": lambda h: torch.sum(h, 1, keepdim=True),
            "keywords": lambda h: h.sum(dim=(-1,), keepdim=True),
            "mean": lambda h: 4 * h.mean(1, keepdim=True),
            "einsum": lambda h: torch.einsum("bi->b", h)[:, None],
            "parts": lambda h: h[:, :1] + h[:, 1:2] + h[:, 2:3] + h[:, 3:],
            "a row of ones": lambda h: h @ torch.ones(4, 1),
        },
    ),
    "max_pool": (
        1,
        {
            "functional": lambda h: F.max_pool1d(h[:, None], 2),
            "torch": lambda h: torch.max_pool1d(h[:, None], 2),
            "module": lambda h: nn.MaxPool1d(2)(h[:, None]),
            "two dimensions": lambda h: F.max_pool2d(h[:, None, None], (1, 2))[:, 0],
            "with indices": lambda h: F.max_pool1d(h[:, None], 2, return_indices=True)[0],
            "amax": lambda h: h.unflatten(1, (2, 2)).amax(2)[:, None],
            "adaptive": lambda h: F.adaptive_max_pool1d(h[:, None], 2),
        },
    ),
    "avg_pool": (
        1,
        {
            "functional": lambda h: F.avg_pool1d(h[:, None], 2),
            "torch": lambda h: torch.avg_pool1d(h[:, None], 2),
            "module": lambda h: nn.AvgPool1d(2)(h[:, None]),
            "two dimensions": lambda h: F.avg_pool2d(h[:, None, None], (1, 2))[:, 0],
            "mean": lambda h: h.unflatten(1, (2, 2)).mean(2)[:, None],
            "adaptive": lambda h: F.adaptive_avg_pool1d(h[:, None], 2),
        },
    ),
    "softmax": (
        1,
        {
            "functional": lambda h: F.softmax(h, 1),
            "torch": lambda h: torch.softmax(h, 1),
            "method": lambda h: h.softmax(1),
            "module": nn.Softmax(1),
            "keyword": lambda h: F.softmax(h, dim=-1),
        },
    ),
    "layer_norm": (
        1,
        {
            "functional": lambda h: F.layer_norm(h, (4,)),
            "torch": lambda h: torch.layer_norm(h, (4,)),
            "module": nn.LayerNorm(4, elementwise_affine=False),
            "group norm of one group": lambda h: F.group_norm(h, 1),
        },
    ),
    "rms_norm": (
        1,
        {
            "functional": lambda h: F.rms_norm(h, (4,), eps=1e-6),
            "module": nn.RMSNorm(4, eps=1e-6, elementwise_affine=False),
            "written out": lambda h: h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-6),
            "as a quotient": lambda h: h / (h.square().mean(-1, keepdim=True) + 1e-6).sqrt(),
        },
    ),
    "normalise": (
        1,
        {
            "functional": lambda h: F.normalize(h, dim=1),
            "norm": lambda h: h / h.norm(dim=1, keepdim=True),
            "linalg": lambda h: h / torch.linalg.vector_norm(h, dim=1, keepdim=True),
        },
    ),
    "reshape": (
        1,
        {
            "method": lambda h: h.reshape(-1, 2, 2),
            "view": lambda h: h.view(-1, 2, 2),
            "torch": lambda h: torch.reshape(h, (-1, 2, 2)),
            "unflatten": lambda h: h.unflatten(1, (2, 2)),
            "module": nn.Unflatten(1, (2, 2)),
            "stack": lambda h: torch.stack(h.split(2, 1), 1),
            "view_as": lambda h: h.view_as(torch.zeros(len(h), 2, 2)),
        },
    ),
    "transpose": (
        2,
        {
            "transpose": lambda a, b: torch.stack([a, b], 1).transpose(1, 2),
            "mT": lambda a, b: torch.stack([a, b], 1).mT,
            "permute": lambda a, b: torch.permute(torch.stack([a, b], 1), (0, 2, 1)),
            "swapaxes": lambda a, b: torch.stack([a, b], 1).swapaxes(1, 2),
            "movedim": lambda a, b: torch.stack([a, b], 1).movedim(2, 1),
            "stack": lambda a, b: torch.stack([a, b], 2),
            "unsqueeze": lambda a, b: torch.cat([a.unsqueeze(2), b[..., None]], dim=-1),
        },
    ),
    "slice": (
        1,
        {
            "brackets": lambda h: h[:, 1:3],
            "narrow": lambda h: h.narrow(1, 1, 2),
            "index_select": lambda h: h.index_select(1, torch.tensor([1, 2])),
            "list": lambda h: h[:, [1, 2]],
            "mask": lambda h: h[:, torch.tensor([False, True, True, False])],
            "gather": lambda h: h.gather(1, torch.tensor([[1, 2]]).expand(len(h), 2)),
            "take_along_dim": lambda h: torch.take_along_dim(h, torch.tensor([[1, 2]]), 1),
            "unbind": lambda h: torch.stack(h.unbind(1)[1:3], 1),
            "split": lambda h: torch.split(h, [1, 2, 1], 1)[1],
            "tensor_split": lambda h: h.tensor_split((1, 3), 1)[1],
        },
    ),
    "write": (
        2,
        {
            "where": lambda a, b: torch.where(FIRST_TWO, a, b),
            "cat": lambda a, b: torch.cat([a[:, :2], b[:, 2:]], 1),
            "setitem": lambda a, b: written_over(a, b),
            "copy_": lambda a, b: copied_over(a, b),
            "masks": lambda a, b: a * FIRST_TWO + b * ~FIRST_TWO,
            "masked_fill": lambda a, b: a.masked_fill(~FIRST_TWO, 0) + b.masked_fill_(FIRST_TWO, 0),
            "buffer": lambda a, b: through_a_buffer(a, b),
            "slice_scatter": lambda a, b: torch.slice_scatter(a, b[:, 2:], 1, 2, 4),
        },
    ),
    "dropout in evaluation": (
        1,
        {
            "nothing": lambda h: h,
            "module": nn.Dropout().eval(),
            "functional": lambda h: F.dropout(h, training=False),
        },
    ),
}

FIRST_TWO = torch.tensor([True, True, False, False])
WEIGHT = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))


def written_over(a: Tensor, b: Tensor) -> Tensor:
    a[:, 2:] = b[:, 2:]
    return a


def copied_over(a: Tensor, b: Tensor) -> Tensor:
    a[:, 2:].copy_(b[:, 2:])
    return a


def through_a_buffer(a: Tensor, b: Tensor) -> Tensor:
    out = a.new_empty(a.shape)
    out[:, :2] = a[:, :2]
    out[:, 2:] = b[:, 2:]
    return out


CASES = [(operation, spelling) for operation, (_, spellings) in OPERATIONS.items() for spelling in spellings]


def built(operation: str, spelling: str) -> tuple[nn.Module, Tensor]:
    operands, spellings = OPERATIONS[operation]
    torch.manual_seed(0)
    model = Written(spellings[spelling], operands)
    x = torch.randn(3, 4)
    with torch.no_grad():
        model(x)  # gives the last layer its shape
    return model.eval(), x


@pytest.mark.parametrize(("operation", "spelling"), CASES)
@pytest.mark.parametrize("composite", ["zero", "epsilon"])
def test_same_map(operation: str, spelling: str, composite: str) -> None:
    maps = []
    for name in (next(iter(OPERATIONS[operation][1])), spelling):
        model, x = built(operation, name)
        relevance = relprop.attribute(model, x, 1, composite=composite)
        assert torch.equal(relevance.output, model(x).detach()), "the forward value changed"
        maps.append(relevance.values)
    # float32, and some spellings sum in another order.
    torch.testing.assert_close(*maps, rtol=1e-4, atol=1e-5)


def test_a_forward_without_torch_function_is_what_the_user_gets_too() -> None:
    """Integer dtypes, shapes as numbers, `.item()`, comparisons and truth values are untouched."""

    class Curious(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            assert x.shape[0] == x.size(0) == len(x) and x.dim() == x.ndim == 2
            order = x.argsort(1)
            assert order.dtype == torch.int64
            assert (x > 0).sum().item() >= 0 and bool((x == x).all())
            assert (x.argmax(1).int() + 1).dtype == torch.int32
            assert x.float().tolist() == x.tolist()
            one_hot = F.one_hot(x.argmax(1), x.shape[1])
            return (x * one_hot).sum(1) + float(x.numel() > 1)

    x = torch.randn(3, 4)
    relevance = relprop.attribute(Curious(), x, composite="zero")
    winner = F.one_hot(x.argmax(1), 4)
    torch.testing.assert_close(relevance.values, x * winner)

"""Linear systems, reductions by index, and other operations that stand for known steps, against torch's gradient in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import rnn

import relprop
from helpers import D
from relprop.errors import UnsupportedOperationError

torch.manual_seed(0)
A = torch.randn(4, 4, dtype=D) + 4 * torch.eye(4, dtype=D)
S = A @ A.T
LOW = torch.linalg.cholesky(S)
LU, PIVOTS = torch.linalg.lu_factor(A)
REFLECTORS, TAU = torch.geqrf(A)
X = torch.randn(4, 3, dtype=D)
ROWS = torch.tensor([0, 2, 2, 1])
I2 = ROWS[:, None].expand(4, 3)
Y = torch.randn(4, 3, dtype=D)
LENGTHS = torch.tensor([1, 3])
Function = Callable[[Tensor], Any]


def first(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else value[0]


def relevance(f: Function, x: Tensor = X, composite: Any = "zero") -> Tensor:
    found = relprop.attribute(lambda x: first(f(x)), x, lambda y: y.sum(), composite=composite)
    with torch.no_grad():
        torch.testing.assert_close(found.output, first(f(x)), rtol=1e-12, atol=1e-12)
        # LAPACK's least squares differ from call to call, by where the numbers lie in memory
        assert torch.equal(found.output, first(f(x))) or f is LINEAR["lstsq"]
    return found.values


def gradient(f: Function, x: Tensor = X) -> Tensor:
    x = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(first(f(x * 1)).sum(), x)  # no leaf, into which nothing can be written
    return x.detach() * g


LINEAR: dict[str, Function] = {
    "solve": lambda x: torch.linalg.solve(A, x),
    "solve from the right": lambda x: torch.linalg.solve(A, x.T, left=False),
    "solve_ex": lambda x: torch.linalg.solve_ex(A, x),
    "lu_solve": lambda x: torch.lu_solve(x, LU, PIVOTS),
    "the method lu_solve": lambda x: x.lu_solve(LU, PIVOTS),
    "linalg.lu_solve": lambda x: torch.linalg.lu_solve(LU, PIVOTS, x),
    "cholesky_solve": lambda x: torch.cholesky_solve(x, LOW),
    "the method cholesky_solve": lambda x: x.cholesky_solve(LOW),
    "tensorsolve": lambda x: torch.linalg.tensorsolve(A.reshape(2, 2, 4), x[:, 0].reshape(2, 2)),
    "lstsq": lambda x: torch.linalg.lstsq(torch.cat([A, S]), torch.cat([x, x])),
    "ormqr": lambda x: torch.ormqr(REFLECTORS, TAU, x),
    "an inverse of constants": lambda x: torch.linalg.inv(A) @ x,
    "a power of constants": lambda x: torch.linalg.matrix_power(A, 3) @ x,
    "scatter_reduce sum": lambda x: torch.zeros(5, 3, dtype=D).scatter_reduce(0, I2, x, "sum"),
    "scatter_reduce mean": lambda x: Y.scatter_reduce(0, I2, x, "mean"),
    "scatter_reduce mean of others": lambda x: Y.scatter_reduce(0, I2, x, "mean", include_self=False),
    "scatter_reduce amax": lambda x: Y.scatter_reduce(0, I2, x, "amax"),
    "scatter_reduce amin into what is live": lambda x: x.scatter_reduce(0, I2, Y, reduce="amin"),
    "scatter_reduce in place": lambda x: (x * 1).scatter_reduce_(0, I2, x, "mean"),
    "scatter add": lambda x: Y.scatter_reduce(0, I2, x, "sum") * 2 + x,
    "index_reduce mean": lambda x: Y.index_reduce(0, ROWS, x, "mean"),
    "index_reduce amax in place": lambda x: (x * 1).index_reduce_(0, ROWS, Y, "amax"),
    "segment_reduce sum": lambda x: torch.segment_reduce(x, "sum", lengths=LENGTHS),
    "segment_reduce mean": lambda x: torch.segment_reduce(x, "mean", lengths=LENGTHS),
    "segment_reduce max": lambda x: torch.segment_reduce(x, "max", lengths=LENGTHS),
    "as_tensor": lambda x: torch.as_tensor(x) * 2,
    "asarray": lambda x: torch.asarray(x) * 2,
    "pad_sequence": lambda x: rnn.pad_sequence([x[0], x[1][:2]], batch_first=True),
    "pack and pad": lambda x: rnn.pad_packed_sequence(rnn.pack_padded_sequence(x[None], torch.tensor([3]), True), True),
    "pack_sequence": lambda x: rnn.pad_packed_sequence(rnn.pack_sequence([x, x[:2]])),
    "unpad_sequence": lambda x: rnn.unpad_sequence(x[:, None], torch.tensor([3])),
    "reflection": lambda x: torch._C._nn.reflection_pad1d(x, (1, 1)),
    "antialiased": lambda x: F.interpolate(x[None, None], scale_factor=0.5, mode="bilinear", antialias=True),
    "bicubic, antialiased": lambda x: F.interpolate(x[None, None], (3, 2), mode="bicubic", antialias=True),
    "aten slice": lambda x: torch.ops.aten.slice(x, 0, 1, 3),
    "to_sparse and back": lambda x: x.to_sparse().to_dense(),
    "vander of a first power": lambda x: torch.linalg.vander(x, N=2)[..., 1],
    "conv_tbc": lambda x: torch.conv_tbc(x[:, None], Y[:2, :, None], Y[0, :1], 1),
    "bags by sample weights": lambda x: F.embedding_bag(I2, S, per_sample_weights=x, mode="sum"),
    "torch.embedding_bag": lambda x: torch.embedding_bag(x, ROWS, torch.tensor([0, 2]), mode=1),
    "masked sum": lambda x: torch.masked.sum(x, 1, mask=Y > 0),
    "masked mean": lambda x: torch.masked.mean(x, 1, mask=torch.cat([Y[:, :1] > 9, Y[:, 1:] < 9], 1)),
}


@pytest.mark.filterwarnings("ignore:.*(sparse|prototype|scatter_reduce|index_reduce|lu_solve|asarray)")
@pytest.mark.parametrize("name", LINEAR)
def test_linear_and_selecting_operations(name: str) -> None:
    if name == "asarray" and not torch.asarray(X.clone().requires_grad_()).requires_grad:
        pytest.skip(f"asarray of torch {torch.__version__} is a detach")
    torch.testing.assert_close(relevance(LINEAR[name]), gradient(LINEAR[name]))
    torch.testing.assert_close(relevance(LINEAR[name], composite="cp_lrp"), gradient(LINEAR[name]))


MATRICES: dict[str, Function] = {
    "solve": lambda x: torch.linalg.solve(x, A),
    "both": lambda x: torch.linalg.solve(x, x),
    "lstsq": lambda x: torch.linalg.lstsq(x, A),
    "lu_solve": lambda x: torch.lu_solve(A, x, PIVOTS),
    "cholesky_solve": lambda x: torch.cholesky_solve(A, x),
    "matrix_power": lambda x: torch.linalg.matrix_power(x, -2),
}


@pytest.mark.parametrize("name", MATRICES)
def test_a_matrix_that_carries_relevance_is_refused(name: str) -> None:
    with pytest.raises(UnsupportedOperationError, match=r"no propagation rule.*replace=True"):
        relevance(MATRICES[name], S.clone())


def test_powers_of_a_matrix_are_products_of_equal_factors() -> None:
    for n in (1, 2, 3, 5):
        found = relevance(lambda x, n=n: torch.linalg.matrix_power(x, n), A)
        torch.testing.assert_close(found, gradient(lambda x, n=n: torch.linalg.matrix_power(x, n), A) / n)
        torch.testing.assert_close(found.sum(), torch.linalg.matrix_power(A, n).sum())


PRODUCTS: dict[str, Function] = {
    "scatter_reduce": lambda x: torch.ones(5, 3, dtype=D).scatter_reduce(0, I2, x, "prod"),
    "into what is live": lambda x: x.scatter_reduce(0, I2, x.detach(), "prod"),
    "all live": lambda x: x.scatter_reduce(0, I2, x, "prod"),
    "without itself": lambda x: x.scatter_reduce(0, I2, x, "prod", include_self=False),
    "in place": lambda x: (x * 1).scatter_reduce_(0, I2, x, "prod"),
    "index_reduce": lambda x: x.index_reduce(0, ROWS, x, "prod"),
    "index_reduce without itself": lambda x: Y.index_reduce(0, ROWS, x, "prod", include_self=False),
    "segment_reduce": lambda x: torch.segment_reduce(x, "prod", lengths=LENGTHS),
    "scatter": lambda x: x.scatter(0, I2, x.detach(), reduce="multiply"),
    "scatter a number": lambda x: x.scatter(0, I2, 3.0, reduce="multiply"),
}


@pytest.mark.filterwarnings("ignore:.*reduce.*:UserWarning")
@pytest.mark.parametrize("name", PRODUCTS)
def test_products_by_index_share_by_the_number_of_their_factors(name: str) -> None:
    """All relevance of a product of what carries some arrives; what no factor of it does keeps its own."""
    y = PRODUCTS[name](X.clone())
    step = 1e-6 * torch.ones_like(X)
    constant = PRODUCTS[name](X + step) == y
    torch.testing.assert_close(relevance(PRODUCTS[name]).sum(), y[~constant].sum())


@pytest.mark.filterwarnings("ignore:The reduce argument of torch.scatter:UserWarning")
def test_scatter_that_adds() -> None:
    """torch has no gradient of it; here it is `scatter_add`."""
    found = relevance(lambda x: x.scatter(0, I2, Y, reduce="add"))
    torch.testing.assert_close(found, X)


def secant(f: Function, x: Tensor) -> Tensor:
    return f(x) - f(torch.zeros_like(x))


def test_functions_of_several_variables_take_the_secant_of_one() -> None:
    for f in (
        lambda x: torch.atan2(x, Y),
        lambda x: torch.special.gammainc(Y.abs(), x.abs()),
        lambda x: torch.special.xlog1py(Y, x),
    ):
        torch.testing.assert_close(relevance(f, X.abs()), secant(f, X.abs()))
    # broadcast: the same number in every column
    found = relevance(lambda x: torch.atan2(x, Y), X[:, :1])
    torch.testing.assert_close(found, secant(lambda x: torch.atan2(x, Y), X[:, :1]).sum(1, keepdim=True))
    torch.testing.assert_close(relevance(lambda x: torch.special.xlog1py(x, Y.abs())), X * torch.log1p(Y.abs()))
    zero = relevance(lambda x: torch.atan2(x, Y.abs()) + x, torch.zeros(4, 3, dtype=D))
    assert torch.equal(zero, torch.zeros(4, 3, dtype=D))


def test_the_divisor_of_an_angle_is_a_constant() -> None:
    found = relprop.attribute(lambda y, x: torch.atan2(y, x), (X, Y.abs()), lambda a: a.sum(), composite="zero")
    torch.testing.assert_close(found.values[0], torch.atan2(X, Y.abs()))
    assert not found.values[1].any()


def test_what_torch_cannot_differentiate_says_so() -> None:
    with pytest.raises(UnsupportedOperationError, match="no derivative along the variable"):
        relevance(lambda x: torch.special.gammainc(x, Y.abs()), X.abs())
    with pytest.raises(UnsupportedOperationError, match="Detach all but one"):
        relevance(lambda x: torch.special.gammainc(x, x), X.abs())
    with pytest.raises(UnsupportedOperationError, match="torch itself has no gradient"):
        relevance(torch.special.airy_ai)


def test_covariances_are_products_of_what_is_centred() -> None:
    def written(x: Tensor) -> Tensor:
        centred = x - x.mean(1, keepdim=True)
        return centred @ centred.T / (x.shape[1] - 1)

    torch.testing.assert_close(relevance(torch.cov), relevance(lambda x: written(x) * 1))
    torch.testing.assert_close(relevance(torch.cov).sum(), torch.cov(X).sum())
    lengths = torch.cov(X).diagonal().sqrt()
    found = relevance(torch.corrcoef)
    torch.testing.assert_close(found, relevance(lambda x: written(x) / lengths[:, None] / lengths))
    weights = torch.tensor([1, 2, 3])
    torch.testing.assert_close(relevance(lambda x: torch.cov(x, fweights=weights, aweights=Y[0].abs())).sum(),
                               torch.cov(X, fweights=weights, aweights=Y[0].abs()).sum())  # fmt: skip


def test_powers_of_entries() -> None:
    """Each is elementwise: all relevance passes, but of the constant column."""
    torch.testing.assert_close(relevance(lambda x: torch.linalg.vander(x, N=4)), X + X**2 + X**3)
    torch.testing.assert_close(relevance(lambda x: torch.vander(x[:, 0], 3))[:, 0], X[:, 0] + X[:, 0] ** 2)


KERNELS: dict[str, tuple[Function, Function]] = {
    "layer": (
        lambda x: torch.native_layer_norm(x, (3,), Y[0], Y[1], 1e-5),
        lambda x: F.layer_norm(x, (3,), Y[0], Y[1], 1e-5),
    ),
    "group": (
        lambda x: torch.native_group_norm(x[:, :, None], Y[0], Y[1], 4, 3, 1, 1, 1e-5),
        lambda x: F.group_norm(x[:, :, None], 1, Y[0], Y[1], 1e-5),
    ),
    "batch": (
        lambda x: torch.native_batch_norm(x, Y[0], Y[1], Y[2], Y[3].abs(), False, 0.1, 1e-5),
        lambda x: F.batch_norm(x, Y[2], Y[3].abs(), Y[0], Y[1]),
    ),
    "batch behind a layer": (
        lambda x: torch.native_batch_norm(F.linear(x, S[:3, :3], Y[0]), None, None, Y[2], Y[3].abs(), False, 0.1, 1e-5),
        lambda x: F.batch_norm(F.linear(x, S[:3, :3], Y[0]), Y[2], Y[3].abs()),
    ),
    "root mean square": (
        lambda x: torch._fused_rms_norm(x, (3,), Y[0], 1e-5),
        lambda x: F.rms_norm(x, (3,), Y[0], 1e-5),
    ),
}


@pytest.mark.parametrize("composite", ["zero", "epsilon_plus"])
@pytest.mark.parametrize("name", KERNELS)
def test_kernels_are_what_their_public_names_are(name: str, composite: str) -> None:
    kernel, public = KERNELS[name]
    torch.testing.assert_close(relevance(kernel, composite=composite), relevance(public, composite=composite))


def test_the_parts_of_a_number_cut_what_the_model_made_of_them() -> None:
    """A mantissa is a rounding's rest: it passes nothing, and nothing else is said to have made it."""
    with pytest.raises(relprop.errors.SeveredGraphError, match="frexp"):
        relprop.attribute(lambda x: torch.frexp(x).mantissa.sum(1), X)


def test_packed_sequences_through_a_recurrent_network() -> None:
    lstm = nn.LSTM(3, 2, batch_first=True).to(D).eval()
    x = torch.randn(2, 4, 3, dtype=D)

    def packed(x: Tensor) -> Tensor:
        return lstm(rnn.pack_padded_sequence(x, torch.tensor([4, 2]), batch_first=True))[1][0][0]

    found = relprop.attribute(packed, x, 0, composite="epsilon")
    for row, steps in ((0, 4), (1, 2)):
        alone = relprop.attribute(lambda x: lstm(x)[1][0][0], x[row : row + 1, :steps], 0, composite="epsilon")
        torch.testing.assert_close(found.values[row, :steps], alone.values[0])
        assert not found.values[row, steps:].any()


@pytest.mark.filterwarnings("ignore:.*nested")
def test_nested_tensors() -> None:
    """Jagged ones keep the rows that they hold."""
    x, offsets = torch.randn(5, 3, dtype=D), torch.tensor([0, 2, 5])
    for f in (
        lambda x: F.linear(torch.nested.nested_tensor_from_jagged(x, offsets), S[:, :3]).values(),
        lambda x: torch.nested.as_nested_tensor([x[:2], x[2:]], layout=torch.jagged).values(),
        lambda x: torch.nested.to_padded_tensor(torch.nested.as_nested_tensor([x[:2], x[2:]]), 0.0),
    ):
        torch.testing.assert_close(relevance(f, x), gradient(f, x))


def test_bags_share_a_product_with_their_sample_weights() -> None:
    ids, weights, table = torch.randint(6, (2, 4)), torch.rand(2, 4, dtype=D), torch.randn(6, 3, dtype=D)

    def model(ids: Tensor, weights: Tensor) -> Tensor:
        return F.embedding_bag(ids, table, per_sample_weights=weights, mode="sum").sum(1)

    found = relprop.attribute(model, (ids, weights), composite="zero")
    for values in found.values:
        torch.testing.assert_close(values, table[ids].sum(2) * weights / 2)

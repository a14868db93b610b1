"""A product with a constant that sums over an axis is a weighted layer, however it is written.

Each form is compared with the definition of the rule, on the matrix that its Jacobian is. Index letters: n sample,
h head, t step, i input, o output.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import reference as ref
import relprop

close = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-10)
N, H, T, I, O = 3, 3, 2, 4, 5  # noqa: E741  (as many samples as heads: sizes that fit by chance must not decide)


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape) + sum(shape)), dtype=torch.float64)


HEADS, MATRIX, ROW, BIAS = drawn(H, I, O), drawn(I, O), drawn(I), drawn(O)
PER_HEAD = drawn(H, 1, O)
NORM = nn.BatchNorm1d(O).double().eval()
NORM.running_mean, NORM.running_var = drawn(O), drawn(O).square() + 0.5

FORMS: dict[str, tuple[Callable[[Tensor], Tensor], tuple[int, ...]]] = {
    "a stack of matrices": (lambda x: x @ HEADS, (N, H, T, I)),
    "by name": (lambda x: torch.matmul(input=x, other=HEADS), (N, H, T, I)),
    "a stack, broadcast": (lambda x: x[:, None] @ HEADS, (N, T, I)),
    "one matrix as a stack": (lambda x: x @ HEADS[:1], (N, H, T, I)),
    "bmm": (lambda x: torch.bmm(x.transpose(0, 1), HEADS).transpose(0, 1), (N, H, I)),
    "bmm of one matrix": (lambda x: torch.bmm(x, MATRIX.expand(len(x), -1, -1)), (N, T, I)),
    "bmm of copies": (lambda x: x.bmm(MATRIX.repeat(len(x), 1, 1)), (N, T, I)),
    "mm": (lambda x: torch.mm(x, MATRIX), (N, I)),
    "matrix first": (lambda x: MATRIX.T @ x, (N, I, T)),
    "matrix first, reflected": (lambda x: x.__rmatmul__(MATRIX.T), (N, I, T)),
    "stack first": (lambda x: torch.matmul(HEADS.mT, x), (N, H, I, T)),
    "einsum of heads": (lambda x: torch.einsum("nhti,hio->nhto", x, HEADS), (N, H, T, I)),
    "einsum, swapped": (lambda x: torch.einsum("hio,nhti->nhto", HEADS, x), (N, H, T, I)),
    "einsum over two axes": (lambda x: torch.einsum("nhi,hio->no", x, HEADS), (N, H, I)),
    "einsum with an ellipsis": (lambda x: torch.einsum("...i,io", x, MATRIX), (N, T, I)),
    "einsum by numbers": (lambda x: torch.einsum(x, [0, 1], MATRIX, [1, 2], [0, 2]), (N, I)),
    "einsum of three": (lambda x: torch.einsum("ni,io,ko->nk", x, MATRIX, MATRIX), (N, I)),
    "einsum summed": (lambda x: torch.einsum("nti,io->no", x, MATRIX), (N, T, I)),
    "einsum of a diagonal": (lambda x: torch.einsum("nhi,hi->nh", x, HEADS[..., 0]), (N, H, I)),
    "a row and a number": (lambda x: x @ ROW + BIAS[0], (N, T, I)),
    "row by row": (lambda x: torch.stack([x @ w + b for w, b in zip(MATRIX.T, BIAS, strict=True)], 1), (N, I)),
    "columns of samples": (lambda x: (MATRIX.T @ x.T + BIAS[:, None]).T, (N, I)),
    "mv": (lambda x: torch.mv(x, ROW), (N, I)),
    "a row": (lambda x: x @ ROW, (N, T, I)),
    "inner": (lambda x: torch.inner(x, MATRIX.T), (N, I)),
    "tensordot": (lambda x: torch.tensordot(x, HEADS, dims=([1, 2], [0, 1])), (N, H, I)),
    "tensordot by a count": (lambda x: torch.tensordot(x, MATRIX, 1), (N, T, I)),
    "vecdot": (lambda x: torch.linalg.vecdot(x, ROW), (N, T, I)),
    "linear with a row": (lambda x: F.linear(x, ROW), (N, T, I)),
    "multi_dot": (lambda x: torch.linalg.multi_dot([x, MATRIX]), (N, I)),
    "stack and bias": (lambda x: x @ HEADS + PER_HEAD, (N, H, T, I)),
    "stack and plain bias": (lambda x: x @ HEADS + BIAS, (N, H, T, I)),
    "stack and scale": (lambda x: (x @ HEADS) * PER_HEAD + BIAS, (N, H, T, I)),
    "columns and bias": (lambda x: MATRIX.T @ x + BIAS[:, None], (N, I, T)),
    "channels second, and a BatchNorm": (lambda x: NORM(torch.einsum("nti,io->not", x, MATRIX)), (N, T, I)),
    "matrix first, and a BatchNorm": (lambda x: NORM(MATRIX.T @ x), (N, I, T)),
    "baddbmm": (lambda x: torch.baddbmm(PER_HEAD, x.transpose(0, 1), HEADS).transpose(0, 1), (N, H, I)),
    "addbmm": (lambda x: torch.addbmm(BIAS, x[None], MATRIX[None]), (N, I)),
    "addmm": (lambda x: torch.addmm(BIAS, x, MATRIX), (N, I)),
    "addmm, scaled": (lambda x: torch.addmm(BIAS, x, MATRIX, beta=3.0, alpha=2.0), (N, I)),
    "addmv": (lambda x: x.new_zeros(N).addmv(x, ROW), (N, I)),
}
RULES: dict[str, tuple[relprop.WeightedRule, ref.Rule]] = {
    "epsilon": (relprop.Epsilon(0.1), partial(ref.epsilon, epsilon=0.1)),
    "gamma": (relprop.Gamma(0.5), partial(ref.gamma, gamma=0.5)),
    "z+": (relprop.ZPlus(), ref.z_plus),
    "alpha beta": (relprop.AlphaBeta(2.0, 1.0), ref.alpha_beta),
    "w2": (relprop.WSquare(), ref.w_square),
    "flat": (relprop.Flat(), ref.flat),
    "z-box": (relprop.ZBox(-4.0, 4.0), partial(ref.z_box, low=-4.0, high=4.0)),
    "z+ without bias": (relprop.ZeroBias(relprop.ZPlus()), ref.zero_bias(ref.z_plus)),
}


def given(shape: tuple[int, ...]) -> Tensor:
    """Inputs of which some are exactly zero."""
    x = drawn(*shape)
    x[x.abs() < 0.3] = 0.0
    return x


def scored(r: Tensor) -> Callable[[Tensor], Tensor]:
    """A target that weighs every output."""
    return lambda y: (y * r).reshape(len(y), -1).sum(1)


def defined(rule: ref.Rule, f: Callable[[Tensor], Tensor], x: Tensor, r: Tensor) -> Tensor:
    """What the rule hands down from the outputs' relevance `r`, sample by sample as for one dense matrix."""
    return ref.weighted(rule)(f, x, r.reshape(len(x), -1))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("form", FORMS)
def test_equals_the_definition(form: str, rule: str) -> None:
    f, shape = FORMS[form]
    x, (ours, naive) = given(shape), RULES[rule]
    y = f(x)
    r = drawn(*y.shape)
    R = relprop.attribute(f, x, scored(r), composite=relprop.Composite({"linear": ours}))
    assert torch.equal(R.output, y)
    one = (lambda s: f(s.expand(N, *s.shape[1:]))[: len(s)]) if form == "addmv" else f
    close(R.values, defined(naive, one, x, y * r))


@pytest.mark.parametrize("form", FORMS)
def test_the_books_balance(form: str) -> None:
    f, shape = FORMS[form]
    x = given(shape)
    R = relprop.attribute(f, x, scored(drawn(*f(x).shape)), composite=relprop.composites.epsilon_plus(), ledger=True)
    close(R.values.flatten(1).sum(1) + R.residual, R.score)
    close(sum(R.ledger.values()) if R.ledger else torch.zeros_like(R.residual), R.residual)


SUMS: dict[str, tuple[Callable[..., Tensor], str, tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = {
    "addmm": (torch.addmm, "ni,io->nio", (N, O), (N, I), (I, O)),
    "addmm of a row": (torch.addmm, "ni,io->nio", (O,), (N, I), (I, O)),
    "addmv": (torch.addmv, "ni,i->ni", (N,), (N, I), (I,)),
    "addbmm": (torch.addbmm, "hti,hio->thio", (T, O), (H, T, I), (H, I, O)),
    "baddbmm": (torch.baddbmm, "hti,hio->htio", (H, T, O), (H, T, I), (H, I, O)),
}
"""The function, the letters of its contributions with what is summed before the last of them, the operands' shapes."""
SUMMED = {"ni,io->nio": 1, "ni,i->ni": 1, "hti,hio->thio": (1, 2), "hti,hio->htio": 2}


@pytest.mark.parametrize("numbers", [{}, {"beta": 2.0, "alpha": -0.5}, {"beta": 0.0}, {"alpha": 3.0}], ids=str)
@pytest.mark.parametrize("live", ["c", "a", "b", "ca", "cb", "ab", "cab"])
@pytest.mark.parametrize("name", SUMS)
def test_a_sum_with_a_product(name: str, live: str, numbers: dict[str, float]) -> None:
    """`y = beta c + alpha a b`: each summand gets its share of y, and two live factors get half each of theirs."""
    function, letters, *shapes = SUMS[name]
    operands = dict(zip("cab", (given(shape) for shape in shapes), strict=True))

    def model(*inputs: Tensor) -> Tensor:
        all_of = operands | dict(zip(live, inputs, strict=True))
        return function(all_of["c"], all_of["a"], all_of["b"], **numbers)

    y = function(*operands.values(), **numbers)
    r = drawn(*y.shape)
    found = relprop.attribute(model, tuple(operands[k] for k in live), lambda out: (out * r).sum(), composite="zero")

    alpha, beta = numbers.get("alpha", 1.0), numbers.get("beta", 1.0)
    per_unit = r  # R / y, where R = y r
    parts = alpha * torch.einsum(letters, operands["a"], operands["b"])
    of_output = per_unit.expand(parts.sum(SUMMED[letters]).shape)
    axes = (SUMMED[letters],) if isinstance(SUMMED[letters], int) else SUMMED[letters]
    for axis in axes:
        of_output = of_output.unsqueeze(axis)
    shares = parts * of_output * (0.5 if "a" in live and "b" in live else 1.0)
    of_a, of_b = letters.split("->")[0].split(",")
    out = letters.split("->")[1]
    wanted = {"a": torch.einsum(f"{out}->{of_a}", shares), "b": torch.einsum(f"{out}->{of_b}", shares)}
    of_c = beta * operands["c"] * r
    wanted["c"] = of_c.sum(0) if operands["c"].ndim < y.ndim else of_c
    values = found.values if isinstance(found.values, (list, tuple)) else [found.values]
    for which, one in zip(live, values, strict=True):
        close(one, wanted[which].reshape(one.shape))


class Headed(nn.Module):
    """Three spellings of one layer with a matrix for each head, and a layer after it."""

    def __init__(self, spelling: str) -> None:
        super().__init__()
        self.spelling = spelling
        self.w, self.end = nn.Parameter(HEADS.clone()), nn.Parameter(drawn(H * O, 2))

    def forward(self, x: Tensor) -> Tensor:
        if self.spelling == "stack":
            h = (x[:, :, None] @ self.w)[:, :, 0]
        elif self.spelling == "einsum":
            h = torch.einsum("nhi,hio->nho", x, self.w)
        elif self.spelling == "bmm":
            h = torch.bmm(x.transpose(0, 1), self.w).transpose(0, 1)
        else:
            h = torch.stack([x[:, k] @ self.w[k] for k in range(H)], 1)
        return h.relu().flatten(1) @ self.end


@pytest.mark.parametrize("rule", ["zero", "epsilon"])
@pytest.mark.parametrize("form", FORMS)
def test_several_targets_in_one_backward_pass(form: str, rule: str) -> None:
    """Behind a layer, so that the product's own backward pass is batched."""
    f, shape = FORMS[form]
    x, layer = given(shape), drawn(shape[-1], shape[-1])

    def model(t: Tensor) -> Tensor:
        return f(torch.tanh(t @ layer))

    r = drawn(*model(x).shape)
    targets = [scored(r), scored(r.square()), scored(r.cos())]
    together = relprop.attribute_each(model, x, targets, composite=rule, targets_at_once=3)
    for target, found in zip(targets, together, strict=True):
        close(found.values, relprop.attribute(model, x, target, composite=rule).values)


@pytest.mark.parametrize("composite", ["epsilon_plus_flat", "gamma", "epsilon"])
def test_heads_together_are_heads_one_by_one(composite: str) -> None:
    x = given((N, H, I))
    rules = relprop.Composite({"linear": relprop.Gamma(0.5)}) if composite == "gamma" else composite
    each = relprop.attribute(Headed("each"), x, 1, composite=rules, weights=composite == "gamma")
    for spelling in ("stack", "einsum", "bmm"):
        R = relprop.attribute(Headed(spelling), x, 1, composite=rules, weights=composite == "gamma", layers=[""])
        if composite != "epsilon_plus_flat":  # there, the first head alone is the first layer
            close(R.values, each.values)
        for name, weight in each.weights.items():
            close(R.weights[name], weight)


def test_the_relevance_of_a_repeated_matrix_is_summed() -> None:
    class Repeated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(MATRIX.clone())

        def forward(self, x: Tensor) -> Tensor:
            return torch.einsum("nti,io->no", x, self.w) + torch.bmm(x, self.w.expand(len(x), -1, -1)).sum(1)

    x = given((N, T, I))
    R = relprop.attribute(Repeated(), x, 1, composite=relprop.Composite({"linear": relprop.ZPlus()}), weights=True)
    close(R.weights["w"].sum(1), R.values.sum((0, 1)))


def test_experts_chosen_by_the_input_are_layers() -> None:
    """A stack of matrices that the input picks weighs, as a matrix does that a loop picks."""

    def together(x: Tensor) -> Tensor:
        return torch.bmm(x[:, None], HEADS[x[:, :H].argmax(1)])[:, 0]

    def one_by_one(x: Tensor) -> Tensor:
        return torch.stack([row @ HEADS[int(row[:H].argmax())] for row in x])

    x, rules = given((6, I)), relprop.Composite({"linear": relprop.Gamma(0.5)})
    r = drawn(6, O)
    found = relprop.attribute(together, x, scored(r), composite=rules)
    close(found.values, relprop.attribute(one_by_one, x, scored(r), composite=rules).values)
    zero = relprop.attribute(together, x, scored(r), composite="zero")
    assert not torch.allclose(found.values, zero.values)


def mixed(x: Tensor) -> Tensor:
    """What the inputs make of themselves: weights of an attention, as constants."""
    weights = (x @ x.mT).softmax(-1).detach()
    return weights @ x


def test_what_the_inputs_compute_is_no_weight() -> None:
    """Nor does it count as the first or the last layer."""
    x, net = given((N, T, I)), nn.Linear(I, 2).double()
    for rule in (relprop.ZPlus(), relprop.Flat()):
        rules = relprop.Composite({relprop.first: rule, "linear": relprop.Epsilon(1.0)})
        R = relprop.attribute(lambda x: net(mixed(x)).sum(1), x, 1, composite=rules)
        alone = relprop.attribute(lambda h: net(h).sum(1), mixed(x), 1, composite=rules)
        G = alone.values / relprop.numerics.nonzero(mixed(x))
        wanted = x * ((x @ x.mT).softmax(-1).mT @ G)
        close(torch.where(x == 0, 0.0, R.values), wanted)
        assert [place.name for place, _ in R.rules if place.index is not None] == ["linear"]


def test_an_argument_that_is_not_explained_is_no_weight() -> None:
    """Such as the adjacency matrix of a graph."""
    links, net = (drawn(N, T, T) > 0).double(), nn.Linear(I, 2).double()
    x, rules = given((N, T, I)), relprop.Composite({"linear": relprop.Gamma(0.5)})
    forms: dict[str, Callable[..., Tensor]] = {
        "matmul": lambda x, links: net(links @ x).sum(1),
        "bmm": lambda x, links: net(torch.bmm(links, x)).sum(1),
        "einsum": lambda x, links: net(torch.einsum("nts,nsi->nti", links, x)).sum(1),
        "written": lambda x, links: net((links[..., None] * x[:, None]).sum(2)).sum(1),
    }
    found = {
        name: relprop.attribute(f, x, 1, forward_args=(links,), composite=rules).values for name, f in forms.items()
    }
    for values in found.values():
        close(values, found["written"])


def test_a_target_weighs_outputs_and_is_no_layer() -> None:
    net, x, v = nn.Linear(I, O).double(), given((N, I)), BIAS
    rules = relprop.Composite({relprop.last: relprop.Epsilon(1.0), "linear": relprop.ZPlus()})
    wanted = relprop.attribute(net, x, lambda y: (y * v).sum(1), composite=rules).values
    for target in (lambda y: y @ v, lambda y: (y @ v[:, None])[:, 0], lambda y: torch.einsum("no,o->n", y, v)):
        close(relprop.attribute(net, x, target, composite=rules).values, wanted)
    with relprop.propagate(rules, model=net, inputs=x.requires_grad_()):
        score = (net(x) @ v).sum()
    close(x * torch.autograd.grad(score, x)[0], wanted)


@pytest.mark.parametrize("layer", ["linear", "conv1d", "conv2d"])
def test_a_bias_that_carries_relevance_is_a_summand(layer: str) -> None:
    """`R` splits between the layer's own output and the bias by their values."""
    shape = {"linear": (N, I), "conv1d": (N, I, 4), "conv2d": (N, I, 4, 4)}[layer]
    w = drawn(O, I, *[2] * (len(shape) - 2))
    run: Any = getattr(F, layer)
    x, b, rules = given(shape), drawn(O), relprop.Composite({"linear": relprop.ZPlus(), "conv": relprop.ZPlus()})
    per_channel = [-1] + [1] * (len(shape) - 2)

    def fused(x: Tensor, b: Tensor) -> Tensor:
        return run(x, w, b).flatten(1).sum(1)

    def apart(x: Tensor, b: Tensor) -> Tensor:
        return (run(x, w) + b.reshape(per_channel)).flatten(1).sum(1)

    def explained(f: Callable[[Tensor, Tensor], Tensor]) -> relprop.Relevance:
        return relprop.attribute(lambda x: f(x, b * x.mean()), x, composite=rules)

    close(explained(fused).values, explained(apart).values)
    assert torch.equal(explained(fused).output, fused(x, b * x.mean()))


# ------------------------------------------------------------------------------------------ sparse matrices of relevance

FROM, TO = torch.tensor([0, 2, 1, 4, 3, 0, 2]), torch.tensor([0, 1, 2, 3, 4, 1, 3])
EDGES = torch.stack([TO, FROM])


def dense_links(values: Tensor) -> Tensor:
    return torch.zeros(5, 5, dtype=values.dtype).index_put((TO, FROM), values)


def sparse_links(values: Tensor) -> Tensor:
    return torch.sparse_coo_tensor(EDGES, values, (5, 5), check_invariants=True)


SPARSE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sparse.mm": lambda values, h: torch.sparse.mm(sparse_links(values), h),
    "matmul": lambda values, h: sparse_links(values) @ h,
    "spmm": lambda values, h: torch.spmm(sparse_links(values), h),
    "coalesced": lambda values, h: sparse_links(values).coalesce().matmul(h),
    "transposed": lambda values, h: torch.mm(
        torch.sparse_coo_tensor(EDGES.flip(0), values, (5, 5), check_invariants=True).t(), h
    ),
    "made of a dense one": lambda values, h: torch.sparse.mm(dense_links(values).to_sparse(), h),
}


@pytest.mark.parametrize("composite", ["zero", "attnlrp", "cp_lrp", "gamma_flat"])
@pytest.mark.parametrize("form", SPARSE.values(), ids=SPARSE)
def test_a_sparse_matrix_that_carries_relevance_gives_what_a_dense_one_gives(
    form: Callable[[Tensor, Tensor], Tensor], composite: str
) -> None:
    x, w, a = torch.randn(5, 4).double(), torch.randn(4, 3).double(), torch.randn(4).double()

    def model(x: Tensor, product: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        return product((x @ a)[FROM].sigmoid(), x @ w)

    found, expected = (
        relprop.attribute(lambda x, f=f: model(x, f), x, relprop.Node(1, 2), composite=composite)  # type: ignore[misc]
        for f in (form, lambda values, h: dense_links(values) @ h)
    )
    torch.testing.assert_close(found.values, expected.values)
    torch.testing.assert_close(found.residual, expected.residual)


@pytest.mark.parametrize("composite", ["zero", "attnlrp", "cp_lrp"])
def test_a_softmax_over_the_entries_of_a_sparse_matrix(composite: str) -> None:
    x, w, a = torch.randn(5, 4).double(), torch.randn(4, 3).double(), torch.randn(4).double()

    def sparse(x: Tensor) -> Tensor:
        return torch.sparse.mm(torch.sparse.softmax(sparse_links((x @ a)[FROM]), 1), x @ w)

    def exponentials(x: Tensor) -> Tensor:
        links = sparse_links((x @ a)[FROM].exp())
        return torch.sparse.mm(links, x @ w) / torch.sparse.mm(links, torch.ones(5, 1).double())

    def dense(x: Tensor) -> Tensor:
        s = torch.full((5, 5), -torch.inf).double().index_put((TO, FROM), (x @ a)[FROM])
        return s.softmax(1) @ (x @ w)

    target = relprop.Node(1, 2)
    expected = relprop.attribute(dense, x, target, composite=composite).values
    for form in (sparse, exponentials):
        torch.testing.assert_close(relprop.attribute(form, x, target, composite=composite).values, expected)


CUBE = torch.linspace(-1.0, 2.0, 18, dtype=torch.float64).reshape(2, 3, 3).sin()
PRODUCTS_OF_TWO: dict[str, tuple[Any, Any]] = {
    "an activation and its operand": (
        lambda x: F.bilinear(F.elu(x), x, CUBE, CUBE[:, 0, 0]),
        lambda x: torch.einsum("ni,oij,nj->no", F.elu(x), CUBE, x) + CUBE[:, 0, 0],
    ),
    "a softmax and another": (
        lambda x: F.bilinear(x.softmax(1), x @ CUBE[0], CUBE),
        lambda x: torch.einsum("ni,oij,nj->no", x.softmax(1), CUBE, x @ CUBE[0]),
    ),
    "complex numbers": (
        lambda x: torch.linalg.vecdot(torch.complex(x, x * 2), torch.complex(x.tanh(), x)).real[:, None],
        lambda x: (torch.complex(x, x * 2).conj() * torch.complex(x.tanh(), x)).sum(1).real[:, None],
    ),
    "several products of matrices": (
        lambda x: torch.linalg.multi_dot([torch.sigmoid(x), CUBE[0], x.mT]).mean(1, keepdim=True),
        lambda x: torch.einsum("ni,ij,mj->nm", torch.sigmoid(x), CUBE[0], x).mean(1, keepdim=True),
    ),
}


@pytest.mark.parametrize("composite", ["zero", "epsilon", "gamma_flat", "cp_lrp", "attnlrp", "auto"])
@pytest.mark.parametrize("form", PRODUCTS_OF_TWO)
def test_products_of_two_live_tensors_are_one(form: str, composite: str) -> None:
    x = torch.linspace(-1.0, 1.0, 3, dtype=torch.float64)[None]
    own, other = (relprop.attribute(f, x, 0, composite=composite).values for f in PRODUCTS_OF_TWO[form])
    torch.testing.assert_close(own, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("composite", ["zero", "epsilon", "attnlrp"])
def test_a_sparse_mask_gives_a_dense_map(composite: str) -> None:
    x, mask = drawn(2, 4), (drawn(2, 4) > 0).double()
    found = relprop.attribute(lambda x: (x * mask.to_sparse()).to_dense().cumsum(1), x, 3, composite=composite)
    close(found.values, x * mask)

"""What must hold for every program: each property takes a program and raises `Broken`, or passes.

Tolerances are relative to the size of what is compared, as rounding is relative to what is summed up.
"""

from __future__ import annotations

import gc
import warnings
import weakref
from ast import literal_eval
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache, partial
from random import Random
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

import reference as ref
import relprop
from program_operations import BLOCKS, MOVES, TABLE
from programs import Node, Program, draw, step
from relprop.errors import NonFiniteError, RelpropWarning, SeveredGraphError

COMPOSITES = ("zero", "epsilon", "gamma_flat", "gamma_box", "cp_lrp", "attnlrp", "auto")


class Broken(AssertionError):
    """A property that does not hold."""


def one_of(program: Program, among: tuple[str, ...] = COMPOSITES) -> str:
    """A composite that the program's seed draws."""
    return Random(program.seed + 1).choice(among)


def target(output: Tensor) -> Tensor:
    """A score of all outputs, with weights that tell them apart."""
    return output @ torch.linspace(-1.0, 1.5, output.shape[1], dtype=output.dtype)


def explained(program: Program, composite: str, x: Tensor | None = None, **options: Any) -> relprop.Relevance:
    x = program.inputs() if x is None else x
    return relprop.attribute(program.build(), x, target, composite=composite, multiply_by_inputs=True, **options)


def tolerance(program: Program) -> float:
    """What rounding may do: of float64, or of the dtype that the program casts to on its way."""
    return {15: 1e-9, 6: 1e-4, 2: 1e-1}[program.digits]


def close(got: Tensor, wanted: Tensor, within: float, what: str, size: Tensor | float = 0.0) -> None:
    """Whether two tensors are equal to `within` of their size, or of the one given."""
    scale = max(float(wanted.abs().max()), float(torch.as_tensor(size).abs().max()), 1e-6)
    if got.shape != wanted.shape:
        raise Broken(f"{what}: shape {tuple(got.shape)} instead of {tuple(wanted.shape)}")
    off = (got - wanted).abs()
    if not bool((off <= within * scale).all()):
        worst = int(off.nan_to_num(nan=torch.inf).argmax())
        raise Broken(f"{what}: {float(got.flatten()[worst]):.9g} instead of {float(wanted.flatten()[worst]):.9g}")


def gradient(program: Program) -> Tensor:
    """Torch's own, of the score with respect to the input."""
    x = program.inputs().requires_grad_()
    with saved_tensors_hooks(lambda t: t.detach().clone(), lambda t: t):  # a program may overwrite them
        (g,) = torch.autograd.grad(target(program.build()(x)).sum(), x, allow_unused=True)
    return torch.zeros_like(x) if g is None else g


def reaches(program: Program) -> bool:
    """Whether the score depends on the input: all else is refused."""
    return program.build()(program.inputs().requires_grad_()).requires_grad


def finite(program: Program) -> bool:
    """Whether its output is finite in the spelling that it has: infinite ones are refused."""
    with torch.no_grad():
        return bool(torch.isfinite(program.build()(program.inputs())).all())


GIVE_TO_ZEROS = ("gamma_flat", "gamma_box", "auto")
"""The composites whose first layer gives relevance to exact zeros."""


@lru_cache(maxsize=8)
def values(program: Program) -> tuple[Tensor, ...]:
    """The input, and what each operation makes of it."""
    found = [program.inputs()]
    for node in program.nodes:
        found.append(step(node)(*(found[n] for n in node.operands)).detach())
    return tuple(found)


def size_of(program: Program) -> float:
    """The largest number in a program."""
    return max(float(v.abs().max()) for v in values(replace(program, spellings=())))


def of_rounding(program: Program) -> bool:
    """Whether some value is `1 - 1`, or that but for rounding, as a sum of what is centred: no share of it can be told."""
    size, found = size_of(program), values(replace(program, spellings=()))
    within = [found[n.operands[0]].flatten(2).mean(2) for n in program.nodes if n.operation == "squeeze and excite"]
    return any(_rounded(v, size) for v in (*found, *within)) or any(
        _cancels(found, number, node) for number, node in enumerate(program.nodes, 1)
    )


def nearly_equal(program: Program) -> bool:
    """Whether a row or channel holds one number everywhere: then so do the bounds of a z-box of its own, but for rounding."""
    size = size_of(program)
    for v in values(replace(program, spellings=())):
        for rows in (v, v.flatten(2) if v.ndim > 2 else v):
            span, largest = rows.amax(-1) - rows.amin(-1), rows.abs().amax(-1)
            if rows.shape[-1] > 1 and bool(((span < 1e-12 * size) & (largest > 0)).any()):
                return True
    return False


def _cancels(found: tuple[Tensor, ...], number: int, node: Any) -> bool:
    """Whether an operation makes an exact 0 of a difference of a tensor and itself."""
    if node.operation not in ("add", "add scaled", "subtract"):
        return False
    a, b = (found[n] for n in node.operands)
    return bool(((found[number] == 0) & (a != 0) & (b != 0)).any())


def score_of_rounding(program: Program) -> bool:
    """Whether the score of a sample is `1 - 1` but for rounding."""
    with torch.no_grad():
        score = target(program.build()(program.inputs()))
    return _rounded(score, size_of(program))


def _rounded(v: Tensor, size: float) -> bool:
    return bool(((v != 0) & (v.abs() < 1e-12 * size)).any())


def picks_otherwise(program: Program) -> bool:
    """Whether an operation that picks among equal numbers picks another of them in its spelling than in the plainest.

    Torch takes the first of them, the last, or shares among all, and no gradient need show it: it may be 0 there.
    """
    for number, (node, operands) in enumerate(_ties(program)):
        if operands is not None and program.spellings:
            found = [_spelled(program, n, t.shape) for n, t in zip(node.operands, operands, strict=True)]
            spelling = program.spellings[number]
            if not _alike(_picked(node, 0, operands), _picked(node, spelling, found)):
                return True
    return False


def picks_by_batch(program: Program, order: Tensor) -> bool:
    """Whether one that picks among equal numbers picks others in another order of the samples, or in a sample alone."""
    for node, operands in _ties(program):
        if operands is not None:
            whole = _picked(node, 0, operands)
            parts = [order, *(torch.tensor([n]) for n in range(len(order)))]
            if not all(
                _alike([g[rows] for g in whole], _picked(node, 0, [t[rows] for t in operands])) for rows in parts
            ):
                return True
    return False


def _ties(program: Program) -> Iterator[tuple[Node, list[Tensor] | None]]:
    """Each node, and its operands if it picks among equal numbers."""
    found = values(replace(program, spellings=()))
    for node in program.nodes:
        operands = [found[n] for n in node.operands]
        picks = node.operation in _PICKING or node.operation in _KINKS
        tied = picks and any(map(_equals, _candidates(node, operands)))
        yield node, operands if tied else None


def _spelled(program: Program, n: int, shape: torch.Size) -> Tensor:
    """A value as it comes out in the program's own spelling, in which rounding may separate what is equal."""
    if n == 0:
        return program.inputs()
    part = replace(program, nodes=program.nodes[:n], spellings=program.spellings[:n], head=False)
    with torch.no_grad():
        found: Tensor = part.build()(part.inputs()).reshape(shape)
    return found


def _picked(node: Node, spelling: int, operands: list[Tensor]) -> list[Tensor]:
    """Which entries an operation picks: its gradients, for a result whose entries can be told apart."""
    given = [t.detach().clone().requires_grad_() for t in operands]
    y = step(node, spelling)(*given)
    return list(torch.autograd.grad(y, given, torch.arange(1.0, y.numel() + 1, dtype=y.dtype).reshape(y.shape)))


def _alike(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(map(torch.equal, one, other))


def _candidates(node: Node, operands: list[Tensor]) -> list[Tensor]:
    """What an operation picks among, along the last axis."""
    if node.operation in _KINKS:  # the number, or a bound
        return [torch.stack([operands[0], torch.full_like(operands[0], kink)], -1) for kink in _KINKS[node.operation]]
    if node.operation == "maximum":
        return [torch.stack(operands, -1)]
    if node.operation == "size":  # the larger of a number and its negative
        return [torch.stack([operands[0], -operands[0]], -1)]
    if node.operation == "max pool":
        return [operands[0].unfold(2, 2, 1)]
    if node.operation == "largest of windows":
        return [operands[0].unfold(2, 2, 1).unfold(3, 2, 1).flatten(4)]
    if node.operation == "largest of neighbours":
        into = literal_eval(dict(node.settings)["into"])
        return [operands[0][:, each].movedim(1, -1) for each in into if len(each) > 1]
    return [operands[0].movedim(dict(node.settings)["d"], -1)]


def _equals(t: Tensor) -> bool:
    """Whether two numbers along the last axis are equal, but for rounding."""
    gaps = t.sort(-1).values.diff(dim=-1)
    return bool((gaps <= 1e-12 * t.abs().amax(-1, keepdim=True)).any())


def softmax_by_exponentials(program: Program) -> bool:
    """Whether a function of the logarithms of a softmax is written with their `exp`, which is that softmax.

    `log(1 + exp(log_softmax(x)))` is a softplus of the one and `log1p` of the other: two functions.
    """
    return any(
        node.operation in ("softplus", "mish", "sigmoid")
        and "{a}.exp()" in TABLE[node.operation].spellings[spelling]
        and _picked_of(program, node.operands[0], "log softmax")
        for node, spelling in zip(program.nodes, program.spellings, strict=True)
    )


def overwrites_a_source(program: Program) -> bool:
    """Whether a tensor of which an activation was made is overwritten: its secant cannot start there any more."""
    readers: dict[int, list[str]] = {}
    for node, spelling in zip(program.nodes, program.spellings, strict=True):
        for n in node.operands:
            readers.setdefault(n, []).append(node.operation)
        writes = "{t}" in TABLE[node.operation].spellings[spelling]
        if writes and not _ACTIVATIONS.isdisjoint(readers[node.operands[0]][:-1]):
            return True
    return False


def _picked_of(program: Program, n: int, operation: str) -> bool:
    """Whether a value has entries of what this operation returned: moved, picked or joined."""
    if not n:
        return False
    node = program.nodes[n - 1]
    moves = {*MOVES, *_PICKING, *_JOINING}
    return node.operation == operation or (
        node.operation in moves and any(_picked_of(program, m, operation) for m in node.operands)
    )


_OTHER_LAYERS: dict[str, set[int]] = {
    "recurrent": {1},
    "gru": {1},
    "lstm": {1},
    "patches of an image": {2, 3, 4, 5},
    "patches of a sequence": {1, 2, 3},
    "pooling by attention": {1, 2, 4},
    "graph attention": {1, 2},
    "sum of neighbours": {4},
    "turn in pairs": {2, 3},
    "product along an axis": {2},
}
"""Spellings of other layers than the plainest has: the steps of a recurrent layer, a linear layer for a convolution, and
weights that are multiplied and summed for a product of matrices, by which the default composite tells attention. And those
that drop what exact zeros carry, such as complex numbers, or share it two by two, such as `a + b + c`."""


def other_layers(program: Program) -> bool:
    """Whether it is spelled with layers of another kind, or another first one."""
    pairs = zip(program.nodes, program.spellings, strict=True)
    return any(spelling in _OTHER_LAYERS.get(node.operation, ()) for node, spelling in pairs)


# -------------------------------------------------------------------------------------- the properties


def forward_is_the_models_own(program: Program) -> None:
    x = program.inputs()
    wanted = program.build()(x.clone()).detach()  # without a gradient, torch has another kernel for its own attention
    for composite in ("auto", one_of(program)):
        got = explained(program, composite).output
        if not torch.equal(got, wanted):
            raise Broken(f"forward under {composite}: off by {float((got - wanted).abs().max()):.3g}")


def zero_is_input_times_gradient(program: Program) -> None:
    if program.exact:
        wanted = program.inputs() * gradient(_norms_written_out(program))
        close(explained(program, "zero").values, wanted, tolerance(program), "zero")


def _norms_written_out(program: Program) -> Program:
    """The program with BatchNorms as arithmetic: torch's own gradient of a frozen one may be wrong by the order in memory."""
    pairs = zip(program.nodes, program.spellings, strict=False)
    return replace(program, spellings=tuple(3 if node.operation == "batch norm" else n for node, n in pairs))


def books_balance(program: Program) -> None:
    composite = one_of(program)
    if score_of_rounding(program) or (composite in GIVE_TO_ZEROS and of_rounding(program)):
        return
    R = explained(program, composite, ledger=True)
    causes = torch.stack([torch.zeros_like(R.residual), *R.ledger.values()])
    sizes = R.values.abs().flatten(1).sum(1) + R.score.abs() + causes.abs().sum(0)
    sizes = sizes + 1e-5 * size_of(program)  # what cancelled on the way was rounded to 1e-14 of these numbers
    close(R.values.flatten(1).sum(1) + R.residual, R.score, 1e-9, f"values and residual under {composite}", sizes)
    close(causes.sum(0), R.residual, 1e-9, f"causes under {composite}", sizes)
    close(R.values, explained(program, composite).values, 1e-9, f"values with a ledger under {composite}")


def linear_in_the_seed(program: Program) -> None:
    composite = one_of(program)
    score = explained(program, composite).score.abs()
    if bool((score < 1e-12).any()) or (
        program.digits < 15 and bool((score < 10**-program.digits * size_of(program)).any())
    ):
        return  # what is handed to a score of 1 - 1 is divided by 0, or by what a cast rounded off
    if composite in GIVE_TO_ZEROS and of_rounding(program):
        return
    made = torch.Generator().manual_seed(program.seed)
    a, b = torch.randn(2, program.samples, generator=made, dtype=torch.float64)
    of_a, of_b, of_both, of_double = (explained(program, composite, seed=s).values for s in (a, b, a + b, 2 * a))
    size = torch.maximum(of_a.abs(), of_b.abs())
    size = size + 1e-3 * torch.stack([a, b]).abs().max()  # of which all may cancel: what was handed out is summed up
    close(of_double, 2 * of_a, 1e-12, f"seed doubled under {composite}", size)
    if program.digits > 2:  # a sum of gradients that are rounded to two digits says nothing
        close(of_both, of_a + of_b, tolerance(program), f"seeds added under {composite}", size)


def a_sample_alone_is_a_sample_in_a_batch(program: Program) -> None:
    composite = one_of(program)
    x = program.inputs()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(program.seed))
    if composite in GIVE_TO_ZEROS and of_rounding(program):
        return
    if picks_by_batch(program, order):
        return  # which of several equals is picked, torch says by the size of the batch
    whole = explained(program, composite)
    within = tolerance(program)
    close(
        explained(program, composite, x[order]).values, whole.values[order], within, f"another order under {composite}"
    )
    for n in range(len(x)):
        alone = explained(program, composite, x[n : n + 1])
        close(alone.values, whole.values[n : n + 1], within, f"sample {n} alone under {composite}", whole.values[n])


def nothing_stays_alive(program: Program) -> None:
    composite, x = one_of(program), program.inputs()
    model = program.build()
    gone = weakref.ref(model)
    for ledger in (False, True):
        relprop.attribute(model, x, target, composite=composite, ledger=ledger)
        before = _tensors()
        for _ in range(2):
            relprop.attribute(model, x, target, composite=composite, ledger=ledger)
        if (left := _tensors() - before) > 0:
            raise Broken(f"{left} tensors stay alive after two explanations{' with a ledger' * ledger}")
    R = relprop.attribute(model, x, target, composite=composite, ledger=True)
    del model
    _collect()
    if gone() is not None:
        raise Broken(f"the result keeps the model alive: {R!r}")


def _collect() -> None:
    """All that is unreachable, also through nodes of autograd, which the collector sees when what holds them is gone."""
    for _ in range(10):
        if not gc.collect():
            return


def _tensors() -> int:
    _collect()
    return sum(issubclass(type(o), Tensor) for o in gc.get_objects())


_KINKS = {
    "relu": (0.0,), "leaky relu": (0.0,), "relu of a slice": (0.0,), "clip": (-0.5, 0.5), "capped relu": (0.0, 0.7),
}  # fmt: skip
"""Where the slope of an operation is one or another, as its spelling has it."""
_PICKING = {
    "largest", "sort", "max pool", "maximum", "size", "largest of windows", "largest of neighbours",
}  # fmt: skip
_JOINING = {"cat", "choose"}
_CUT = {
    "softmax", "log softmax", "attention", "softmax over the first axis", "causal attention", "several heads", "graph attention",
    "pooling by attention",
}  # fmt: skip
"""What is made of a softmax, which CP-LRP cuts."""
_ACTIVATIONS = {
    "relu", "leaky relu", "size", "sigmoid", "tanh", "silu", "gelu", "gelu by tanh", "softplus", "mish", "elu", "hard sigmoid",
    "hard swish", "square", "exp", "sine", "clip", "capped relu",
}  # fmt: skip


def operations_of(program: Program) -> set[str]:
    return {node.operation for node in program.nodes}


def one_map_however_it_is_spelled(program: Program) -> None:
    if program.digits < 15:
        return  # where rounding is coarse, two spellings need not be on the same side of a kink
    if picks_otherwise(program):
        return
    if softmax_by_exponentials(program) or overwrites_a_source(program):
        return
    plain = program.spelled(None)
    slopes = gradient(plain), gradient(program)
    scale = max(float(slopes[0].abs().max()), 1e-6)
    if not bool(((slopes[0] - slopes[1]).abs() <= 1e-10 * scale).all()):
        return  # nor here: torch's own gradients differ
    for composite in Random(program.seed + 2).sample(COMPOSITES, 3):
        if composite in GIVE_TO_ZEROS and (of_rounding(program) or other_layers(program)):
            continue
        if composite == "gamma_box" and nearly_equal(program):
            continue
        if composite == "cp_lrp" and "turn in pairs" in operations_of(program):
            continue  # which factor is the gate is not known behind complex numbers
        wanted, got = explained(plain, composite), explained(program, composite)
        if (
            composite == "auto"
            and wanted.composite != got.composite
            and not BLOCKS.keys().isdisjoint(operations_of(program))
        ):
            continue  # it goes by what it finds: a softmax and a product of matrices, of which one is written out
        close(got.score, wanted.score, 1e-9, f"score under {composite}", size_of(plain))
        handed = 1e-4 * wanted.score  # all of which may cancel: then rounding of what was handed out is left
        close(got.values, wanted.values, 1e-7, f"spelled otherwise under {composite}", handed)


FRONT = (
    "copy", "swap", "flatten", "fold", "flip", "roll", "pick", "slice", "repeat", "pad", "negate", "scale", "scale by a row",
    "scale by channel", "upsample", "total", "mean", "average pool", "differences", "cumsum",
)  # fmt: skip
"""What a network may do with its input before its first layer: linear, and nothing added."""


def zeros_keep_their_relevance(program: Program) -> None:
    """Whatever linear operations stand before it, a first layer gives exact zeros what its rule says."""
    random = Random(program.seed)
    front = draw(program.seed, FRONT, longest=6)
    front = replace(front, head=False, spellings=front.spelled(random).spellings, nodes=front.nodes)
    values = [front.inputs()]
    steps = [step(node) for node in front.nodes]
    for made, node in zip(steps, front.nodes, strict=True):
        values.append(made(*(values[n] for n in node.operands)).detach())
    if any(bool(((v != 0) & (v.abs() < 1e-9)).any()) for v in values):
        return  # what is `1 - 1` but for rounding has no share that can be told
    units = values[-1].flatten(1).shape[1]
    torch.manual_seed(program.seed)
    net = nn.Sequential(nn.Linear(units, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    model = nn.Sequential(front.build(), net)
    name, rule, naive = random.choice(_UNPROPORTIONAL)
    composite = relprop.Composite({relprop.first: rule, "linear": relprop.Zero()})
    got = relprop.attribute(model, values[0], 1, composite=composite).values

    def seed(z: Tensor) -> Tensor:
        return torch.stack([torch.zeros_like(z[:, 0]), z[:, 1]], 1)

    relu = partial(ref.activation, torch.relu)
    layers = [(net[0], ref.weighted(naive)), (torch.relu, lambda _, x, r: relu(x, r)), (net[2], ref.weighted(ref.zero))]
    r = ref.propagate(layers, values[-1].flatten(1), seed).reshape(values[-1].shape)
    for made, x in zip(reversed(steps), reversed(values[:-1]), strict=True):
        r = _shared(made, x, r)
    close(got, r, 1e-8, f"{name} first, behind {', '.join(node.operation for node in front.nodes)}")


_UNPROPORTIONAL: tuple[tuple[str, relprop.WeightedRule, ref.Rule], ...] = (
    ("flat", relprop.Flat(), ref.flat),
    ("w2", relprop.WSquare(), ref.w_square),
    ("z-box", relprop.ZBox(-3.0, 3.0), partial(ref.z_box, low=-3.0, high=3.0)),
)


def _shared(layer: Callable[[Tensor], Tensor], x: Tensor, r: Tensor) -> Tensor:
    """What a linear map hands down: `m_ij x_i / y_j`, in equal parts where all of `y_j`'s sources are zero."""
    w, _ = ref.affine(layer, x.shape[1:])
    c = ref.contributions(x.flatten(1), w)
    connected = (w != 0).to(w).expand_as(c)
    dead = (c == 0).all(1, keepdim=True)
    r = torch.where(((c.sum(1).abs() < 1e-12) & ~dead[:, 0]), 0.0, r.flatten(1))  # 1 - 1: none can be told apart
    c = torch.where(dead, connected, c)
    return ref.shares(c, c.sum(1), r).reshape(x.shape)


def the_model_is_untouched(program: Program) -> None:
    model, x = program.build(), program.inputs()
    before, given = state(model), x.clone()
    relprop.attribute(model, x, target, composite=one_of(program), ledger=program.seed % 2 == 0)
    after = state(model)
    changed = [name for name in before if before[name] != after.get(name)] + [n for n in after if n not in before]
    if changed:
        raise Broken(f"changed: {', '.join(changed)}")
    if not torch.equal(x, given) or x.requires_grad or x.grad is not None:
        raise Broken("the caller's input is changed")


def state(model: nn.Module) -> dict[str, Any]:
    """All that an explanation must leave as it was."""
    held: dict[str, Any] = {"random numbers": torch.get_rng_state().numpy().tobytes()}
    held["modes"] = (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.overrides._get_current_function_mode(),
    )
    for path, module in model.named_modules():
        hooks = {name: len(value) for name, value in vars(module).items() if "hooks" in name}
        held[f"module {path}"] = hooks, sorted(vars(module)), module.training
    for path, tensor in (*model.named_parameters(), *model.named_buffers()):
        values = tensor.detach().numpy().tobytes(), tensor.requires_grad, tensor._version, id(tensor)
        held[f"tensor {path}"] = values, tensor.grad is None, len(tensor._backward_hooks or ()), sorted(vars(tensor))
    return held


PROPERTIES: dict[str, Callable[[Program], None]] = {
    f.__name__: f
    for f in (
        forward_is_the_models_own,
        zero_is_input_times_gradient,
        books_balance,
        linear_in_the_seed,
        a_sample_alone_is_a_sample_in_a_batch,
        one_map_however_it_is_spelled,
        zeros_keep_their_relevance,
        nothing_stays_alive,
        the_model_is_untouched,
    )
}


def fault(program: Program, names: tuple[str, ...] = tuple(PROPERTIES)) -> tuple[str, BaseException] | None:
    """The first property that does not hold, and what was raised."""
    if not reaches(program) or not finite(program):
        return None
    for name in names:
        try:
            with warnings.catch_warnings():
                for right in ("the model ends in a sigmoid", r"inputs(\[0\])? has relevance 0 everywhere"):
                    warnings.filterwarnings("ignore", right, RelpropWarning)  # right notices
                PROPERTIES[name](program)
        except (SeveredGraphError, RelpropWarning) as error:  # the input was cut off from the score, wholly or in part
            cut = _CUT & operations_of(program)
            if not cut and bool(
                gradient(program).any()
            ):  # else there is nothing to lose, as in `x - x.mean()` of one entry
                return name, error
        except (
            NonFiniteError
        ) as error:  # a relevance for each number of a tiny value, beyond what a half precision holds
            if program.digits == 15:
                return name, error
        except Exception as error:
            return name, error
    return None

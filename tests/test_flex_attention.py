"""Flex attention: the map of the same attention written out, whatever its score_mod, plain or compiled."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import relprop
from helpers import weighed_by
from relprop.errors import UnsupportedOperationError

flex = pytest.importorskip("torch.nn.attention.flex_attention")
flex_attention = flex.flex_attention

close = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-11)

B, H, T, D = 2, 4, 6, 8
NOT_LATER = torch.ones(T, T, dtype=torch.bool).tril()
DISTANCE = (torch.arange(T)[:, None] - torch.arange(T)).double()
SLOPES = nn.Parameter(torch.tensor([0.5, 0.25, 0.125, 0.0625]).double())
TABLE = nn.Parameter(torch.linspace(-1, 1, H * (2 * T - 1)).double().reshape(H, 2 * T - 1))
ADDED = torch.linspace(-2, 2, B * T * T).double().reshape(B, 1, T, T)

MIXED = "a row of a captured tensor"


@pytest.fixture(autouse=True)
def without_its_advice() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="flex_attention called without torch.compile")
        warnings.filterwarnings("ignore", message=".*script_method", category=DeprecationWarning)  # torch's own use
        warnings.filterwarnings("ignore", message="_compile flag", category=DeprecationWarning)  # transformers' use
        yield


@pytest.fixture(autouse=True)
def as_torch_can(request: pytest.FixtureRequest) -> None:
    """A case that torch itself cannot run is none for us."""
    callspec = getattr(request.node, "callspec", None)
    if callspec is not None and callspec.params.get("name") == MIXED and not _indexes_by_numbers():
        pytest.skip(
            f"flex attention of torch {torch.__version__} takes no number among the indices of a captured tensor"
        )


@cache
def _indexes_by_numbers() -> bool:
    q, table = torch.randn(1, 1, 4, 4), torch.randn(1, 1, 4, 4)
    try:
        flex_attention(q, q, q, score_mod=lambda s, b, h, t, u: s + table[b, 0, t].sum(-1))
    except RuntimeError:
        return False
    return True


def causal() -> Any:
    return flex.create_block_mask(lambda b, h, t, s: t >= s, None, None, T, T, device="cpu")


def per_sample() -> Any:
    """The second sample has two keys less; head 0 sees its own position only."""
    return flex.create_block_mask(lambda b, h, t, s: (s < T - 2 * b) & ((h > 0) | (t == s)), B, H, T, T, device="cpu")


def dense_per_sample() -> Tensor:
    mask = torch.ones(B, H, T, T, dtype=torch.bool)
    mask[1, ..., -2:] = False
    mask[:, 0] &= torch.eye(T, dtype=torch.bool)
    return mask


def written_out(
    q: Tensor, k: Tensor, v: Tensor, change: Callable[[Tensor], Tensor] = lambda s: s, mask: Tensor | None = None,
    scale: float = D**-0.5,
) -> Tensor:  # fmt: skip
    k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], 1) for t in (k, v))
    scores = change(q @ k.transpose(-2, -1) * scale)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    weights = scores.softmax(-1)
    if mask is not None:
        weights = weights.masked_fill(~mask.any(-1, keepdim=True), 0)
    return weights @ v


class Case:
    """An attention as flex attention takes it, and as one writes it."""

    def __init__(self, written: Callable[..., Tensor], **options: Any) -> None:
        self.written, self.options = written, options

    def flex(self, q: Tensor, k: Tensor, v: Tensor) -> Any:
        return flex_attention(q, k, v, **{n: o() if n == "block_mask" else o for n, o in self.options.items()})


CASES = {
    "plain": Case(written_out),
    "scaled": Case(partial(written_out, scale=0.7), scale=0.7),
    "causal": Case(partial(written_out, mask=NOT_LATER), block_mask=causal),
    "per sample": Case(
        lambda q, k, v: written_out(q, k, v, mask=dense_per_sample()), block_mask=per_sample
    ),
    "unchanged": Case(
        partial(written_out, mask=NOT_LATER), score_mod=lambda s, b, h, t, u: s, block_mask=causal
    ),
    "causal by score": Case(
        partial(written_out, change=lambda s: torch.where(NOT_LATER, s, -torch.inf)),
        score_mod=lambda s, b, h, t, u: torch.where(t >= u, s, -torch.inf),
    ),
    "ALiBi": Case(
        partial(written_out, change=lambda s: s - SLOPES[:, None, None] * DISTANCE, mask=NOT_LATER),
        score_mod=lambda s, b, h, t, u: s - SLOPES[h] * (t - u), block_mask=causal,
    ),
    "relative bias": Case(
        partial(written_out, change=lambda s: s + TABLE[:, (DISTANCE + T - 1).long()]),
        score_mod=lambda s, b, h, t, u: s + TABLE[h, t - u + T - 1],
    ),
    "looked up one axis at a time": Case(
        partial(written_out, change=lambda s: s + ADDED), score_mod=lambda s, b, h, t, u: s + ADDED[b][0][t][u]
    ),
    MIXED: Case(
        partial(written_out, change=lambda s: s + ADDED.sum(-1, keepdim=True)),
        score_mod=lambda s, b, h, t, u: s + ADDED[b, 0, t].sum(-1),
    ),
    "clamped, by names": Case(
        partial(written_out, change=lambda s: s.clamp(min=-0.4, max=0.3)),
        score_mod=lambda s, b, h, t, u: torch.clamp(input=s, min=-0.4, max=0.3),
    ),
    "soft cap": Case(
        partial(written_out, change=lambda s: 2.0 * torch.tanh(s / 2.0), mask=NOT_LATER),
        score_mod=lambda s, b, h, t, u: 2.0 * torch.tanh(s / 2.0), block_mask=causal,
    ),
}  # fmt: skip
COMPOSITES: dict[str, Any] = {
    "attnlrp": "attnlrp",
    "cp_lrp": "cp_lrp",
    "epsilon": "epsilon",
    "gradient": relprop.composites.gradient(),
    "temperature": relprop.Composite({"softmax": relprop.Temperature(2.0)}),
}


def inputs(kv_heads: int = H) -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(B, H, T, D).double(), *torch.randn(2, B, kv_heads, T, D).double()


def both(some: Callable[..., Tensor], other: Callable[..., Tensor], given: tuple, composite: Any = "attnlrp") -> None:
    """Two spellings give one map and one output."""
    weights = torch.randn(B, H, T, D).to(given[0].dtype)
    found, expected = (relprop.attribute(f, given, weighed_by(weights), composite=composite) for f in (some, other))
    check = close if given[0].dtype == torch.float64 else partial(torch.testing.assert_close, rtol=1e-5, atol=1e-6)
    check(found.output, expected.output)
    for a, b in zip(found.values, expected.values, strict=True):
        check(a, b)


@pytest.mark.parametrize("composite", COMPOSITES)
@pytest.mark.parametrize("name", CASES)
def test_flex_equals_written_out(name: str, composite: str) -> None:
    both(CASES[name].flex, CASES[name].written, inputs(), COMPOSITES[composite])


@pytest.mark.parametrize("name", CASES)
def test_in_single_precision(name: str) -> None:
    q, k, v = (t.float() for t in inputs())

    def written(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return CASES[name].written(q.double(), k.double(), v.double()).float()

    if name in ("ALiBi", "relative bias"):  # a float64 parameter widens the scores
        pytest.skip("the biases of these cases are float64")
    both(CASES[name].flex, written, (q, k, v))


@pytest.mark.parametrize("name", ["causal", "soft cap"])
def test_the_value_is_the_operators_own(name: str) -> None:
    given = inputs()
    found = relprop.attribute(CASES[name].flex, given, lambda y: y[:, 0, 1, 2], composite="attnlrp")
    close(found.output, CASES[name].flex(*given))


@pytest.mark.parametrize("composite", ["attnlrp", "cp_lrp"])
@pytest.mark.parametrize("name", ["causal", "soft cap"])
def test_grouped_queries(name: str, composite: str) -> None:
    case = CASES[name]
    grouped = Case(case.written, **case.options, enable_gqa=True)
    both(grouped.flex, grouped.written, inputs(kv_heads=2), composite)


@pytest.mark.parametrize("name", ["causal", "soft cap", "ALiBi"])
def test_compiled(name: str) -> None:
    """As the transformers library calls it: the compiled function stands aside."""
    compiled = torch.compile(flex_attention)
    options = {n: o() if n == "block_mask" else o for n, o in CASES[name].options.items()}
    both(lambda q, k, v: compiled(q, k, v, **options), CASES[name].written, inputs())


def test_a_query_that_sees_nothing() -> None:
    """Flex attention gives it zeros: no relevance, and nothing that is not finite."""

    def nothing() -> Any:
        return flex.create_block_mask(lambda b, h, t, s: (t >= s) & (t > 0), None, None, T, T, device="cpu")

    mask = NOT_LATER & (torch.arange(T) > 0)[:, None]

    def written(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        seen = written_out(q[..., 1:, :], k, v, mask=mask[1:])
        return torch.cat([torch.zeros_like(q[..., :1, :]), seen], -2)

    for score_mod in (None, lambda s, b, h, t, u: s + 0.0 * t):
        both(Case(written, block_mask=nothing, score_mod=score_mod).flex, written, inputs())


@pytest.mark.parametrize("composite", ["attnlrp", "cp_lrp", "gradient"])
def test_a_bias_made_of_the_inputs_carries_relevance(composite: str) -> None:
    """What a score_mod captures may depend on the inputs: no argument of the operator shows it."""

    def by_flex(q: Tensor, k: Tensor, v: Tensor, content: Tensor) -> Tensor:
        bias = torch.tanh(content)
        return flex_attention(q, k, v, score_mod=lambda s, b, h, t, u: s + bias[b, h, t, u])

    def written(q: Tensor, k: Tensor, v: Tensor, content: Tensor) -> Tensor:
        return written_out(q, k, v, lambda s: s + torch.tanh(content))

    both(by_flex, written, (*inputs(), torch.randn(B, H, T, T).double()), COMPOSITES[composite])


def test_only_a_captured_tensor_is_live() -> None:
    q, k, v = inputs()
    content = torch.randn(B, H, T, T).double()
    both(
        lambda c: flex_attention(q, k, v, score_mod=lambda s, b, h, t, u: s + c[b, h, t, u]),
        lambda c: written_out(q, k, v, lambda s: s + c),
        (content,),
    )


def test_nothing_is_live() -> None:
    q, k, v = inputs()
    y = flex_attention(q, k, v, block_mask=causal())
    found = relprop.attribute(lambda x: x * flex_attention(q, k, v, block_mask=causal()), torch.ones_like(y), (0, 1, 2))
    assert torch.equal(found.output, y)


@pytest.mark.parametrize("score_mod", [None, lambda s, b, h, t, u: s - 0.125 * (t - u)])
def test_the_logsumexp_carries_relevance(score_mod: Any) -> None:
    """Asked for beside the output, on every device that hands it out; torch's own CPU kernel does when compiled only."""
    q, k, v = inputs()

    def scores(q: Tensor, k: Tensor) -> Tensor:
        plain = q @ k.transpose(-2, -1) * D**-0.5
        return plain if score_mod is None else plain - 0.125 * DISTANCE

    def by_flex(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        y, lse = flex_attention(q, k, v, score_mod=score_mod, return_lse=True)
        return y * torch.sigmoid(lse)[..., None]

    def written(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        s = scores(q, k)
        return (s.softmax(-1) @ v) * torch.sigmoid(s.logsumexp(-1))[..., None]

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="return_lse is deprecated")
        both(by_flex, written, (q, k, v), COMPOSITES["gradient"])
        y, lse = flex_attention(q, k, v, score_mod=score_mod, return_lse=True)
    close(lse, torch.logsumexp(scores(q, k), -1))
    assert math.isfinite(y.sum())


def test_a_function_that_only_works_on_one_score_is_refused() -> None:
    """`score.ndim` is 0 for torch, and is not for us: a wrong map is never handed out."""
    q, k, v = inputs()

    def score_mod(s: Tensor, b: Tensor, h: Tensor, t: Tensor, u: Tensor) -> Tensor:
        return s * 2 if s.ndim == 0 else s * 3

    with pytest.raises(UnsupportedOperationError, match="than on one score at a time"):
        relprop.attribute(lambda q: flex_attention(q, k, v, score_mod=score_mod), q, (0, 1, 2))


def test_torchs_own_refusal_stays_outside() -> None:
    q, k, v = inputs()
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 13):
        pytest.skip(f"torch {torch.__version__} does not refuse it")
    with pytest.raises(NotImplementedError, match="backward"):
        flex_attention(q.requires_grad_(), k, v)
    close(F.scaled_dot_product_attention(q, k, v).detach(), flex_attention(q.detach(), k, v))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["causal", "soft cap"])
def test_in_a_compiled_call_of_ours(name: str) -> None:
    given = inputs()
    call = relprop.compile(CASES[name].flex, composite="attnlrp", backend="aot_eager")
    expected = relprop.attribute(CASES[name].written, given, (1, 2, 3), composite="attnlrp")
    for a, b in zip(call(given, (1, 2, 3)).values, expected.values, strict=True):
        close(a, b)
    assert call.graphs == 1


def test_a_survey_names_the_attention() -> None:
    q, k, v = inputs()
    seen = relprop.survey(lambda q: flex_attention(q, k, v, block_mask=causal()), q, "attnlrp")
    assert [place.name for place, _ in seen.places] == ["scaled_dot_product_attention"] and not seen.unknown


# ------------------------------------------------------------------------------------- as the transformers library calls it

SMALL: dict[str, Any] = {
    "vocab_size": 50, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
GROUPED = {**SMALL, "num_key_value_heads": 2}
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", "LlamaConfig", GROUPED),
    "gemma2": ("Gemma2ForCausalLM", "Gemma2Config", {**GROUPED, "head_dim": 8, "sliding_window": 3}),  # soft caps
    "gemma3": ("Gemma3ForCausalLM", "Gemma3TextConfig", {**GROUPED, "head_dim": 8, "sliding_window": 3}),
    "six heads": ("LlamaForCausalLM", "LlamaConfig", {**GROUPED, "num_attention_heads": 6, "hidden_size": 48}),
    "bert": ("BertForMaskedLM", "BertConfig", SMALL),
}  # fmt: skip
IDS = torch.tensor([[5, 17, 3, 42, 8, 9, 11], [8, 4, 23, 19, 7, 3, 2]])


@pytest.mark.parametrize("composite", ["attnlrp", "cp_lrp"])
@pytest.mark.parametrize("name", MODELS)
def test_eager_equals_flex(name: str, composite: str) -> None:
    transformers = pytest.importorskip("transformers")
    made, config, options = MODELS[name]
    model = getattr(transformers, made)(getattr(transformers, config)(**options)).double().eval().requires_grad_(False)
    maps = []
    for implementation in ("eager", "flex_attention"):
        model.set_attn_implementation(implementation)
        maps.append(relprop.attribute(model, IDS, (3, 7), composite=composite).values)
    torch.testing.assert_close(*maps, rtol=1e-6, atol=1e-6 * maps[0].abs().max().item())  # eager's softmax is float32


def test_flex_with_padding() -> None:
    transformers = pytest.importorskip("transformers")
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**GROUPED)).double().eval().requires_grad_(False)
    ids = torch.cat([IDS[:1, :4], torch.zeros(1, 3, dtype=torch.int64)], 1)
    given = {"input_ids": ids, "attention_mask": (ids != 0).long()}
    maps = []
    for implementation in ("sdpa", "flex_attention"):
        model.set_attn_implementation(implementation)
        maps.append(relprop.attribute(model, given, (3, 7), composite="attnlrp").values["input_ids"])
    close(*maps)
    assert maps[1][:, 4:].abs().sum() == 0 and maps[1].abs().sum() > 0

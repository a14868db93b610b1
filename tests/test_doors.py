"""A wrong call of a public function is one error of ours: it names the function, what it got, and what to write.

What an error advises is done here.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop.attribution.settings import Settings
from relprop.errors import (
    ArgumentError,
    CompositeError,
    InputError,
    RelpropError,
    RelpropWarning,
    RuleError,
    TargetError,
    TracedError,
)


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)).eval()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 4)


# ------------------------------------------------------------------------------------------------------- arguments

NOTHING: Any = None
MISNAMED: dict[str, tuple[Callable[[], Any], str]] = {
    "attribute, several": (
        lambda: relprop.attribute(NOTHING, NOTHING, targets=3),  # type: ignore[call-arg]
        r"relprop\.attribute: there is no argument 'targets'\. Did you mean 'target'\? .*attribute_each",
    ),
    "attribute, misspelt": (
        lambda: relprop.attribute(NOTHING, NOTHING, compsite="zero"),  # type: ignore[call-arg]
        r"relprop\.attribute: there is no argument 'compsite'\. Did you mean 'composite'",
    ),
    "attribute, too many": (
        lambda: relprop.attribute(NOTHING, NOTHING, 3, "zero"),  # type: ignore[misc]
        r"4 arguments were given without a name; .*: model, inputs, target=None\. Name the others, as in composite=",
    ),
    "attribute, too few": (
        lambda: relprop.attribute(NOTHING),  # type: ignore[call-arg]
        r"relprop\.attribute: missing a required argument: 'inputs'\. It is called with \(model, inputs, target=None, \.\.\.\)",
    ),
    "attribute, twice": (
        lambda: relprop.attribute(NOTHING, NOTHING, 0, target=0),  # type: ignore[misc]
        r"relprop\.attribute: multiple values for argument 'target'",
    ),
    "attribute_each": (
        lambda: relprop.attribute_each(NOTHING, NOTHING, target=3),  # type: ignore[call-arg]
        r"relprop\.attribute_each: .*'target'\. Did you mean 'targets'",
    ),
    "survey": (
        lambda: relprop.survey(NOTHING, NOTHING, composit="zero"),  # type: ignore[call-arg]
        r"relprop\.survey: .*Did you mean 'composite'",
    ),
    "compile": (
        lambda: relprop.compile(nn.Linear(4, 3), bakend="eager"),
        r"relprop\.compile: there is no argument 'bakend'\. Did you mean 'backend'",
    ),
    "compile, inputs": (
        lambda: relprop.compile(nn.Linear(4, 3), NOTHING),  # type: ignore[misc]
        r"relprop\.compile: .*relprop\.compile\(model\)\(inputs, target\)",
    ),
    "compiled": (
        lambda: relprop.compile(nn.Linear(4, 3), backend="eager")(NOTHING, composite="zero"),  # type: ignore[call-arg]
        r"relprop\.compile made: there is no argument 'composite'\. It was settled",
    ),
    "propagate": (
        lambda: relprop.propagate("zero", layer="x"),  # type: ignore[call-arg]
        r"relprop\.propagate: there is no argument 'layer'",
    ),
    "explain_text": (
        lambda: relprop.explain_text(NOTHING, NOTHING, "oil", taget="x"),
        r"relprop\.explain_text: there is no argument 'taget'\. Did you mean 'target'",
    ),
    "explain_text, of another": (
        lambda: relprop.explain_text(NOTHING, NOTHING, "oil", max_new_tokens=3),
        r"relprop\.explain_text: .*relprop\.explain_generation\(model, tokenizer, text, max_new_tokens=20\)",
    ),
    "explain_generation": (
        lambda: relprop.explain_generation(NOTHING, NOTHING, "oil", max_tokens=3),
        r"relprop\.explain_generation: there is no argument 'max_tokens'\. Did you mean 'max_new_tokens'",
    ),
    "report": (
        lambda: relprop.report([], "x.html", titel="x"),
        r"relprop\.report: there is no argument 'titel'\. Did you mean 'title'",
    ),
    "load": (
        lambda: relprop.load(folder="x"),  # type: ignore[call-arg]
        r"relprop\.load: there is no argument 'folder'",
    ),
    "register": (
        lambda: relprop.register(torch.relu, famly="x"),  # type: ignore[call-arg]
        r"relprop\.register: there is no argument 'famly'\. Did you mean 'family'",
    ),
    "register, without its name": (
        lambda: relprop.register(torch.relu, torch.tanh),  # type: ignore[call-arg]
        r"relprop\.register: missing a required argument: 'family'\. It is called with \(family=\.\.\., \.\.\.\)",
    ),
    "a rule": (
        lambda: relprop.Epsilon(eps=1),  # type: ignore[call-arg]
        r"Epsilon: there is no argument 'eps'\. Did you mean 'epsilon'",
    ),
    "a rule without its parameters": (
        lambda: relprop.ZeroBias(),  # type: ignore[call-arg]
        r"ZeroBias: missing a required argument: 'rule'\. It is called with \(rule",
    ),
    "a named composite": (
        lambda: relprop.composites.gamma_flat(gama=1),  # type: ignore[call-arg]
        r"relprop\.composites\.gamma_flat: .*Did you mean 'gamma'",
    ),
    "a composite": (
        lambda: relprop.Composite({}, nam="x"),  # type: ignore[call-arg]
        r"relprop\.Composite: .*Did you mean 'name'",
    ),
    "a contrast": (
        lambda: relprop.Contrast(0),  # type: ignore[call-arg]
        r"relprop\.Contrast: missing a required argument: 'negative'",
    ),
    "a path": (lambda: relprop.path(pattern="x"), r"relprop\.path: there is no argument 'pattern'"),  # type: ignore[call-arg]
}  # fmt: skip


@pytest.mark.parametrize("name", MISNAMED)
def test_arguments_that_do_not_exist(name: str) -> None:
    call, said = MISNAMED[name]
    with pytest.raises(ArgumentError, match=said) as caught:
        call()
    assert isinstance(caught.value, TypeError) and isinstance(caught.value, InputError)
    # one error, without the one it stands for
    assert caught.value.__context__ is None or caught.value.__suppress_context__


OUTPUTS: dict[str, tuple[Callable[[Any, Path], Any], str]] = {
    "show": (lambda R, _: R.show(dpi=200), r"Relevance\.show: there is no argument 'dpi'.*scale=2"),
    "save": (
        lambda R, at: R.save(at / "x.png", figsize=(3, 3)),
        r"Relevance\.save: there is no argument 'figsize'.*width=",
    ),
    "svg": (lambda R, _: R.to_svg(cmap="hot"), r"Relevance\.to_svg: .*palette=\"red_blue\""),
    "html": (lambda R, _: R.to_html(titel="x"), r"Relevance\.to_html: .*Did you mean 'title'"),
    "image": (lambda R, _: R.to_image(scal=2), r"Relevance\.to_image: .*Did you mean 'scale'"),
    "plot": (lambda R, _: R.plot(vmax=2), r"Relevance\.plot: .*limit="),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_options_of_drawing_that_do_not_exist(name: str, model: nn.Module, x: Tensor, tmp_path: Path) -> None:
    R, (call, said) = relprop.attribute(model, x, 0), OUTPUTS[name]
    with pytest.raises(ArgumentError, match=said):
        call(R, tmp_path)
    assert R.to_image(scale=2).width == 2 * R.to_image().width  # as advised
    R.to_svg(palette="red_blue", limit=1.0)


WRONG_OUTPUTS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "no path": (lambda R: R.save(None), "path is where the result goes"),
    "no scale": (lambda R: R.save("x.png", scale="big"), "scale must be a number above 0"),
    "scale of nothing": (lambda R: R.to_image(scale=0), "scale must be a number above 0"),
    "most": (lambda R: R.to_svg(most="all"), "an int above 0"),
    "percentile": (lambda R: R.to_svg(percentile="high"), "percentile is 'high'; it must be a number"),
    "limit": (lambda R: R.to_svg(limit="x"), "limit is 'x'; it must be a number"),
    "axes": (lambda R: R.plot(3), "ax must be an axes of matplotlib"),
    "a sample by name": (lambda R: R["a"], r"R\[3\] or R\[:2\]"),
    "a report the other way round": (lambda R: relprop.report("x.html", [R]), "'report.html', after the results"),
    "nothing to load": (lambda R: relprop.load(None), "path of a folder that R.save"),  # type: ignore[arg-type]
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_OUTPUTS)
def test_outputs(name: str, model: nn.Module, x: Tensor) -> None:
    call, said = WRONG_OUTPUTS[name]
    with pytest.raises(InputError, match=said):
        call(relprop.attribute(model, x, 0))


def test_an_error_from_within_is_no_wrong_call(model: nn.Module, x: Tensor) -> None:
    """A TypeError of the caller's own code stays what it is."""

    class Picky(nn.Module):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            Picky.calls += 1
            if Picky.calls == 1:
                raise TypeError("unexpected keyword argument 'mine'")
            return x

    with pytest.raises(TypeError, match="'mine'") as caught:
        relprop.attribute(Picky(), x, 0)
    assert not isinstance(caught.value, RelpropError)


def test_the_outermost_function_is_named(model: nn.Module, x: Tensor) -> None:
    """`attribute_each` runs inside of others."""
    with pytest.raises(InputError, match=r"^relprop\.attribute: "):
        relprop.attribute(model, "x", 0)
    with pytest.raises(InputError, match=r"^relprop\.attribute_each: "):
        relprop.attribute_each(model, "x", [0])
    try:
        relprop.attribute(model, x / 0, 0)
    except InputError as error:
        assert error.called == "relprop.attribute" and str(error) == f"relprop.attribute: {error.message}"


def test_signatures_stay_what_they_are() -> None:
    assert list(inspect.signature(relprop.attribute).parameters)[:3] == ["model", "inputs", "target"]
    assert list(inspect.signature(relprop.Epsilon).parameters) == ["epsilon", "relative"]
    assert list(inspect.signature(relprop.composites.epsilon).parameters) == ["epsilon", "relative"]


def test_an_argument_has_one_default_wherever_it_appears() -> None:
    """That of `Settings`, which holds what a caller sets."""
    defaults = {field.name: field.default for field in dataclasses.fields(Settings)}
    settings = set(defaults)
    assert settings < set(inspect.signature(relprop.attribute).parameters)
    compiled = relprop.attribution.Compiled.__call__
    functions: list[Any] = [relprop.attribute, relprop.attribute_each, relprop.compile, compiled]
    for function in (*functions, relprop.survey, relprop.propagate):
        for name, parameter in inspect.signature(function).parameters.items():
            if name in settings or parameter.kind is parameter.KEYWORD_ONLY:
                assert defaults.setdefault(name, parameter.default) == parameter.default, (function, name)


def test_every_public_function_is_a_door() -> None:
    """So that none is left out that is added later."""
    for name in relprop.__all__:
        found = getattr(relprop, name)
        if inspect.isfunction(found):
            assert (
                getattr(inspect.unwrap(found, stop=lambda f: hasattr(f, "called")), "called", None) == f"relprop.{name}"
            )


def test_names_nearly_right() -> None:
    with pytest.raises(AttributeError, match=r"Did you mean relprop\.attribute\?"):
        relprop.atribute  # noqa: B018


# ---------------------------------------------------------------------------------------------------------- models

NO_MODEL: dict[str, tuple[Any, str]] = {
    "a name": ("resnet50", r"got str 'resnet50'\. Load the model first"),
    "a path": (Path("net.pt"), "Load the model first"),
    "nothing": (None, "got NoneType"),
    "a class": (nn.Identity, r"model is the class Identity, not one of its instances: pass Identity\(\.\.\.\)"),
    "weights": (nn.Linear(4, 3).state_dict(), r"as a state dict does: fill a model with it, net\.load_state_dict"),
    "several": ([nn.Identity(), nn.Identity()], "Explain one model at a time"),
    "numbers": (torch.ones(2), "got Tensor"),
}
WITH_MODEL: dict[str, Callable[[Any, Tensor], Any]] = {
    "relprop.attribute": lambda model, x: relprop.attribute(model, x, 0),
    "relprop.attribute_each": lambda model, x: relprop.attribute_each(model, x, [0]),
    "relprop.survey": lambda model, x: relprop.survey(model, x),
    "relprop.compile": lambda model, x: relprop.compile(model),
    "relprop.explain_text": lambda model, x: relprop.explain_text(model, None, "oil"),
    "relprop.explain_generation": lambda model, x: relprop.explain_generation(model, None, "oil"),
}


@pytest.mark.parametrize("function", WITH_MODEL)
@pytest.mark.parametrize("kind", NO_MODEL)
def test_what_is_no_model(kind: str, function: str, x: Tensor) -> None:
    given, said = NO_MODEL[kind]
    with pytest.raises(InputError, match=said) as caught:
        WITH_MODEL[function](given, x)
    assert str(caught.value).startswith(f"{function}: ")


def test_a_model_from_a_file_as_advised(model: nn.Module, x: Tensor, tmp_path: Path) -> None:
    wanted = relprop.attribute(model, x, 0).values
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    torch.save(model, tmp_path / "whole.pt")
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)).eval()
    net.load_state_dict(torch.load(tmp_path / "weights.pt"))
    assert torch.equal(relprop.attribute(net, x, 0).values, wanted)
    net = torch.load(tmp_path / "whole.pt", weights_only=False)
    assert torch.equal(relprop.attribute(net, x, 0).values, wanted)


def test_model_and_inputs_in_the_wrong_order(model: nn.Module, x: Tensor) -> None:
    for call in (relprop.attribute, relprop.survey):
        with pytest.raises(InputError, match="wrong order, the model comes first"):
            call(x, model)
    with pytest.raises(InputError, match="The model comes first"):
        relprop.attribute(model, model)


# ------------------------------------------------------------------------------------------------ rules and places


def test_what_is_nearly_a_composite(model: nn.Module, x: Tensor) -> None:
    with pytest.raises(CompositeError, match=r"Call it: relprop\.composites\.epsilon\(\)"):
        relprop.attribute(model, x, 0, composite=relprop.composites.epsilon)  # type: ignore[arg-type]
    with pytest.raises(CompositeError, match=r"It is a class: make one"):
        relprop.attribute(model, x, 0, composite=relprop.Epsilon)  # type: ignore[arg-type]
    with pytest.raises(CompositeError, match=r"a named one is composite='epsilon'"):
        relprop.Composite("epsilon")  # type: ignore[arg-type]
    with pytest.raises(CompositeError, match=r"Say where it acts, as in Composite\(\{'conv': Epsilon"):
        relprop.Composite([relprop.Epsilon()])  # type: ignore[list-item]
    with pytest.raises(CompositeError, match="Say where it acts"):
        relprop.Composite(relprop.Epsilon())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "make", [lambda: relprop.path(3), lambda: relprop.operation("relu"), lambda: relprop.where("conv")]
)
def test_what_is_no_place(make: Callable[[], Any]) -> None:
    with pytest.raises(CompositeError, match=r"must be a .*, as in"):
        make()


def test_what_cannot_be_registered() -> None:
    with pytest.raises(InputError, match=r"relprop\.register: register takes functions.*got 'relu'"):
        relprop.register("relu", family="structure")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"relprop\.register: unknown family 'x'"):
        relprop.register(torch.special.airy_ai, family="x")


def test_a_parameter_that_no_rule_has_keeps_its_own_error() -> None:
    with pytest.raises(RuleError):
        relprop.Epsilon("x")  # type: ignore[arg-type]


PROPAGATE: dict[str, tuple[Callable[[nn.Module, Tensor], Any], str]] = {
    "the model first": (lambda model, x: relprop.propagate(model), r"write relprop\.propagate\('epsilon', model=model"),  # type: ignore[arg-type]
    "no composite": (lambda model, x: relprop.propagate("epsilo"), "no composite named 'epsilo'"),
    "no gradient": (lambda model, x: relprop.propagate("zero", inputs=x), r"x\.requires_grad_\(\)"),
    "no tensor": (lambda model, x: relprop.propagate("zero", inputs="x"), "must be tensors"),
    "no model": (lambda model, x: relprop.propagate("zero", model="x"), "model must be a torch.nn.Module; got str|got str"),
}  # fmt: skip


@pytest.mark.parametrize("name", PROPAGATE)
def test_propagate(name: str, model: nn.Module, x: Tensor) -> None:
    call, said = PROPAGATE[name]
    with pytest.raises(RelpropError, match=said) as caught, call(model, x):
        pass
    assert str(caught.value).startswith("relprop.propagate: ")
    with relprop.propagate("epsilon", model=model, inputs=x.requires_grad_()):
        model(x)


# ------------------------------------------------------------------------------------------- traces and transforms


def traced(name: str) -> Callable[[Callable[[Tensor], Tensor], Tensor], Any]:
    from torch.fx.experimental.proxy_tensor import make_fx

    class Module(nn.Module):
        def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
            super().__init__()
            self.function = function

        def forward(self, x: Tensor) -> Tensor:
            return self.function(x)

    ways: dict[str, Callable[[Callable[[Tensor], Tensor], Tensor], Any]] = {
        "torch.jit.trace": lambda f, x: torch.jit.trace(f, x),
        "torch.export": lambda f, x: torch.export.export(Module(f), (x,), strict=False),
        "torch.export, strict": lambda f, x: torch.export.export(Module(f), (x,), strict=True),
        "torch.fx.symbolic_trace": lambda f, x: torch.fx.symbolic_trace(f),
        "make_fx": lambda f, x: make_fx(f)(x),
        "make_fx, fake": lambda f, x: make_fx(f, tracing_mode="fake")(x),
        "torch.compile, one graph": lambda f, x: torch.compile(f, fullgraph=True, backend="eager")(x),
        "vmap": lambda f, x: torch.vmap(f)(x[None]),
        "grad": lambda f, x: torch.func.grad(lambda x: f(x).sum())(x),
        "jvp": lambda f, x: torch.func.jvp(f, (x,), (x,)),
        "vmap over something else": lambda f, x: torch.vmap(lambda s: f(x) * s)(torch.ones(2)),
        "functionalize": lambda f, x: torch.func.functionalize(f)(x),
    }
    return ways[name]


TRACES = [
    "torch.jit.trace", "torch.export", "torch.export, strict", "torch.fx.symbolic_trace", "make_fx", "make_fx, fake",
    "torch.compile, one graph", "vmap", "grad", "jvp", "vmap over something else", "functionalize",
]  # fmt: skip


@pytest.mark.parametrize("how", TRACES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*torch.jit.*:FutureWarning")
def test_an_explanation_cannot_be_traced(how: str, model: nn.Module, x: Tensor) -> None:
    torch._dynamo.reset()
    with pytest.raises(TracedError, match=r"relprop\.attribute: .*Call relprop\.attribute outside of it") as caught:
        traced(how)(lambda x: relprop.attribute(model, x, 0, composite="epsilon").values, x)
    assert isinstance(caught.value, RuntimeError)
    wanted = relprop.attribute(model, x, 0, composite="epsilon").values  # nothing stays behind
    compiled = relprop.compile(model, composite="epsilon", backend="eager")  # as advised
    torch.testing.assert_close(compiled(x, 0).values, wanted)


def test_relevance_can_be_trained_on_as_advised(model: nn.Module, x: Tensor) -> None:
    live = x.clone().requires_grad_()
    with relprop.propagate("epsilon", model=model, inputs=live):
        score = model(live)[:, 0].sum()
    (g,) = torch.autograd.grad(score, live, create_graph=True)
    with pytest.warns(RelpropWarning, match="not exactly the derivative"):
        (live * g).pow(2).sum().backward()
    assert live.grad is not None and bool(torch.isfinite(live.grad).all())


def test_code_that_is_compiled_may_explain(model: nn.Module, x: Tensor) -> None:
    """The graph breaks there."""
    torch._dynamo.reset()
    explained = torch.compile(lambda x: relprop.attribute(model, x * 1, 0).values * 2, backend="eager")
    torch.testing.assert_close(explained(x), relprop.attribute(model, x, 0).values * 2)


# ----------------------------------------------------------------------------------------------------------- texts


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_length": 0}, "max_length must be a positive int; got 0"),
        ({"longest_answer": "x"}, "longest_answer must be a positive int"),
        ({"batch_size": True}, "batch_size must be a positive int; got True"),
        ({"mask": "first"}, "mask must be the number of a mask token"),
        ({"parts": "all"}, r"what relprop\.text\.find_parts found; got 'all'"),
        ({"decoder_text": 3}, "decoder_text must be a str; got 3"),
        ({"positions": "yes"}, "positions must be True or False"),
        ({"labels": "abc"}, "labels must be a list"),
    ],
)
def test_options_of_texts(options: dict[str, Any], said: str, model: nn.Module) -> None:
    with pytest.raises(RelpropError, match=said) as caught:
        relprop.explain_text(model, len, "oil", **options)
    assert str(caught.value).startswith("relprop.explain_text: ")


def test_options_that_a_head_has_no_use_for() -> None:
    pytest.importorskip("transformers")
    import text_models as tiny

    words = tiny.words()
    with pytest.raises(TargetError, match="mask=0 is for models that fill masks"):
        relprop.explain_text(tiny.build("bert", words), words, "oil", mask=0)
    with pytest.raises(TargetError, match="labels= names classes, and this model has none"):
        relprop.explain_text(tiny.build("mask", words), words, "the [MASK]", labels=["a"])
    with pytest.raises(TargetError, match=r"target\.tolist\(\)"):
        relprop.explain_text(tiny.build("bert", words), words, ["oil", "cut"], torch.tensor([0, 1]))
    with pytest.raises(InputError, match="template must be a dict"):
        relprop.explain_text(tiny.build("bert", words), words, "oil", template="x")  # type: ignore[arg-type]


@pytest.mark.parametrize("function", ["LRP.attribute", "LayerLRP.attribute"])
def test_the_interface_of_captum_names_itself(function: str, model: nn.Module, x: Tensor) -> None:
    lrp: Any = relprop.LRP(model) if function == "LRP.attribute" else relprop.LayerLRP(model, model[0])
    with pytest.raises(
        ArgumentError, match=rf"^{re.escape(function)}: there is no argument 'targt'\. Did you mean 'target'"
    ):
        lrp.attribute(x, targt=0)
    with pytest.raises(InputError, match=rf"^{re.escape(function)}: "):
        lrp.attribute("x", 0)


def test_an_argument_of_the_models_own_generate() -> None:
    pytest.importorskip("transformers")
    import text_models as tiny

    tokenizer = tiny.letters()
    model = tiny.build("llama", tokenizer)
    with pytest.raises(
        ArgumentError, match=r"explain_generation: there is no argument 'num_beams'.*generate=\{'num_beams': \.\.\.\}"
    ):
        relprop.explain_generation(model, tokenizer, "The capital", num_beams=2)
    found = relprop.explain_generation(model, tokenizer, "The capital", max_new_tokens=2, generate={"num_beams": 2})
    assert len(found.generated) <= 2
    with pytest.raises(InputError, match=r"the model's own generate does not take generate=\{'beams': 2\}"):
        relprop.explain_generation(model, tokenizer, "The capital", generate={"beams": 2})
    with pytest.raises(InputError, match="write it outside of generate"):
        relprop.explain_generation(model, tokenizer, "The capital", generate={"max_new_tokens": 2})
    with pytest.raises(InputError, match="generate must be a dict"):
        relprop.explain_generation(model, tokenizer, "The capital", generate="greedy")  # type: ignore[arg-type]
    told = relprop.explain_generation(
        model, tokenizer, "The capital", max_new_tokens=2, generate={"return_dict_in_generate": True}
    )
    assert told.generated == relprop.explain_generation(model, tokenizer, "The capital", max_new_tokens=2).generated
    with pytest.raises(InputError, match="continuation must be a str; got 3"):
        relprop.explain_generation(model, tokenizer, "The capital", continuation=3)  # type: ignore[arg-type]

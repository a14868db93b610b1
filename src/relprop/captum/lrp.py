"""`LRP` and `LayerLRP` with the interface of `captum.attr`, run by relprop's engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relprop.attribution import Relevance, attribute
from relprop.captum.assignment import Assignment
from relprop.captum.targets import gradients, positional, select
from relprop.errors import InputError, InputTypeError
from relprop.signatures import public

Answer = TypeVar("Answer", bound=Callable[..., Any])


def _wrapped(method: Answer) -> Answer:
    """A method with the attribute `__wrapped__`, which captum's NoiseTunnel calls."""
    return public(f".{method.__name__}")(method)  # type: ignore[return-value]


class LRP:
    """Layer-wise relevance propagation with the interface of `captum.attr.LRP`.

    Rules are attributes of modules, `model.conv1.rule = GammaRule()`. A container's rule acts on the layers with
    weights inside it that have no rule of their own. A module without a rule, or whose rule is None, gets that of its
    type in `SUPPORTED_LAYERS_WITH_RULES`, or else the engine's default. Rules are read on every call, never changed.

    Args:
        model: a module. It is not changed.

    Raises:
        TypeError: the model is not a module, or the `rule` of one of its modules is not a valid `PropagationRule`.

    References:
        Bach et al. 2015, "On pixel-wise explanations for non-linear classifier decisions by layer-wise relevance
        propagation", PLoS ONE 10(7).
    """

    def __init__(self, model: nn.Module) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(
                f"LRP takes a torch.nn.Module, whose modules carry the rules; got {type(model).__name__}. For a function "
                "of tensors use relprop.attribute."
            )
        self.model = model
        self.forward_func = model
        self.gradient_func = gradients
        Assignment(model)

    @property
    def multiplies_by_inputs(self) -> bool:
        """Always True: relevance is the input times a modified gradient."""
        return True

    @_wrapped
    def attribute(
        self,
        inputs: Any,
        target: Any = None,
        additional_forward_args: Any = None,
        return_convergence_delta: bool = False,
        verbose: bool = False,
    ) -> Any:
        """Relevance of the inputs for one score per sample.

        Args:
            inputs: a tensor, or a tuple of them for the model's first arguments, with samples along their first axis.
                Integers, such as token ids, get the relevance of the rows that an embedding looks up for them.
            target: the entry of the output to explain. An int (negative: from the end), or a tensor with one, is for
                all samples. A list or 1-D tensor of ints has one per sample. A tuple of ints and slices, or a list of
                tuples, is for outputs with more dimensions. None is for one output per sample. Axes that it does not
                name must have length 1. If the number of output rows differs from that of samples, their sum is
                explained.
            additional_forward_args: further arguments of the model, which get no relevance: a tuple of several, or
                one of any other type.
            return_convergence_delta: whether to return the delta as well.
            verbose: whether to print which rule ran on which module, in execution order.

        Returns:
            Relevance in the shape, dtype and structure of the inputs (floating point for ids), detached. It sums to the
            target's score minus what biases and stabilisers absorbed. (captum's documentation says that it sums to 1;
            captum's code does not do so either.) With `return_convergence_delta`, a tuple of it and the delta, shape
            (N,): the score minus the sum over all inputs.

        Raises:
            InputTypeError: an AssertionError; the inputs are neither a tensor nor a tuple of tensors.
            InputError: the inputs cannot be explained.
            TargetTypeError: an AssertionError; the target does not fit the output.
            TargetIndexError: an IndexError; the target lies outside the output.
            RuleError: a rule cannot act where it was set.
            ModelStateError: dropout or a batch norm is in training mode.
            UnsupportedOperationError: the model calls an operation without a known propagation.
            NonFiniteError: the output or the relevance is NaN or infinite.
        """
        found = self._explain(inputs, target, additional_forward_args, verbose)
        return self._answer(found.values, found.score, return_convergence_delta)

    def attribute_future(self) -> None:
        """Not implemented, as in captum.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(f"attribute_future is not implemented for {type(self).__name__}: call attribute.")

    def has_convergence_delta(self) -> bool:
        """Always True: the delta is what biases and stabilisers absorbed."""
        return True

    def compute_convergence_delta(self, attributions: Tensor | tuple[Tensor, ...], output: Tensor) -> Tensor:
        """The output minus the sum of the attributions, shape (N,).

        Args:
            attributions: a tensor (N, ...), or a tuple of them, over which the sum runs.
            output: the explained scores, N numbers.
        """
        parts = attributions if isinstance(attributions, tuple) else (attributions,)
        total = sum(part.reshape(part.shape[0], -1).sum(1) for part in parts)
        return output.flatten() - total

    def _explain(
        self, inputs: Any, target: Any, additional_forward_args: Any, verbose: bool, **options: Any
    ) -> Relevance:
        _check(inputs)
        assignment = Assignment(self.model)
        samples = len(inputs[0] if isinstance(inputs, tuple) else inputs)

        def chosen(output: Any) -> Tensor:
            score = select(output, target)
            return score if len(score) == samples else score.sum()

        found = attribute(
            self.model, inputs, chosen, composite=assignment.composite(),
            forward_args=positional(additional_forward_args), **options,
        )  # fmt: skip
        assignment.check(found.rules)
        if verbose:
            for rule, path, place in assignment.ran(found.rules):
                print(f"Applied {rule!r} on layer {path or type(self.model).__name__} ({place.name})")
        return found

    def _answer(self, attributions: Any, output: Tensor, with_delta: bool) -> Any:
        return (attributions, self.compute_convergence_delta(attributions, output)) if with_delta else attributions


class LayerLRP(LRP):
    """Relevance of hidden layers, with the interface of `captum.attr.LayerLRP`. Rules work as for `LRP`.

    Args:
        model: a module. It is not changed.
        layer: the module whose relevance to return, a list or tuple of modules, or None for all layers: every module
            without children that ran, in the order of `model.modules()`. After the call, `layers` lists these.

    Raises:
        TypeError: the model or a layer is not a module, or a `rule` is not a valid `PropagationRule`.
        InputError: a layer is not part of the model.
    """

    def __init__(self, model: nn.Module, layer: Any) -> None:
        super().__init__(model)
        self.layer = layer
        self.layers: list[nn.Module] = []
        members = {id(module) for module in model.modules()}
        for module in _listed(layer):
            if not isinstance(module, nn.Module):
                raise TypeError(f"layer must be a module, a list or tuple of modules, or None; got {module!r}.")
            if id(module) not in members:
                raise InputError(f"layer {module} is not part of the model.")

    @_wrapped
    def attribute(  # type: ignore[override]  # captum's order of arguments
        self,
        inputs: Any,
        target: Any = None,
        additional_forward_args: Any = None,
        return_convergence_delta: bool = False,
        attribute_to_layer_input: bool = False,
        verbose: bool = False,
    ) -> Any:
        """Relevance of the layer's output, or input, for one score per sample.

        Args:
            inputs: as for `LRP.attribute`.
            target: as for `LRP.attribute`.
            additional_forward_args: as for `LRP.attribute`.
            return_convergence_delta: whether to return the delta as well.
            attribute_to_layer_input: whether to return the relevance of the layer's input instead of its output. It is
                the whole relevance of that tensor, including what reaches it through other modules.
            verbose: whether to print which rule ran on which module.

        Returns:
            A tensor in the shape of the layer's output (or input); a tuple of them if the layer has several, in the
            order of its arguments, or ran several times, in the order of the calls. For a list or tuple of layers, or
            for all, a list. With `return_convergence_delta`, a tuple of that and the delta, or the list of deltas.

        Raises:
            InputError: the layer was not called, or the inputs cannot be explained; else as `LRP.attribute`.
        """
        everything = self.layer is None
        modules = (
            [m for m in self.model.modules() if next(m.children(), None) is None] if everything else _listed(self.layer)
        )
        found = self._explain(
            inputs, target, additional_forward_args, verbose,
            layers=modules, layers_at="input" if attribute_to_layer_input else "output",
        )  # fmt: skip
        paths = {id(module): path for path, module in reversed(list(self.model.named_modules(remove_duplicate=False)))}
        relevance = [found.layers[paths[id(module)]] for module in modules]
        if everything:
            self.layers = [m for m, value in zip(modules, relevance, strict=True) if not _nothing(value)]
            relevance = [value for value in relevance if not _nothing(value)]
        for module, value in zip(modules, relevance, strict=False):
            if _nothing(value):
                raise InputError(
                    f"layer '{paths[id(module)]}' ({type(module).__name__}) was not called by the model on these inputs, "
                    f"or {'took' if attribute_to_layer_input else 'returned'} no floating point tensor."
                )
        answers = [tuple(value) if isinstance(value, list) else value for value in relevance]
        if not everything and isinstance(self.layer, nn.Module):
            return self._answer(answers[0], found.score, return_convergence_delta)
        deltas = [self.compute_convergence_delta(answer, found.score) for answer in answers]
        return (answers, deltas) if return_convergence_delta else answers

    @staticmethod
    def interpolate(
        layer_attribution: Tensor, interpolate_dims: int | tuple[int, ...], interpolate_mode: str = "nearest"
    ) -> Tensor:
        """Relevance of a layer, resized, for example to the input's size.

        Args:
            layer_attribution: (N, C, ...) with one to three spatial axes.
            interpolate_dims: the size of the spatial axes.
            interpolate_mode: a mode of `torch.nn.functional.interpolate`.
        """
        return F.interpolate(layer_attribution, interpolate_dims, mode=interpolate_mode)


def _listed(layer: Any) -> Sequence[Any]:
    if layer is None:
        return []
    return layer if isinstance(layer, (list, tuple)) else [layer]


def _nothing(value: Any) -> bool:
    return isinstance(value, list) and not value


def _check(inputs: Any) -> None:
    parts = inputs if isinstance(inputs, tuple) else (inputs,)
    if not parts or not all(isinstance(part, torch.Tensor) for part in parts):
        raise InputTypeError(
            f"inputs must be a tensor or a tuple of tensors; got {type(inputs).__name__}. Further arguments of the model go "
            "into additional_forward_args."
        )

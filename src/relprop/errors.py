"""Every error relprop raises on purpose. Each says what was given, what is accepted, where, and how to fix it."""

from __future__ import annotations


class RelpropError(Exception):
    """Base of all errors of this library.

    Attributes:
        called: the public function that was called, as users write it; the error's text begins with it.
    """

    called: str | None = None

    def called_as(self, name: str) -> None:
        """Notes the public function that was called."""
        self.called = name

    @property
    def message(self) -> str:
        """What went wrong, without the function that was called."""
        return super().__str__()

    def __str__(self) -> str:
        return self.message if self.called is None else f"{self.called}: {self.message}"


class InputError(RelpropError, ValueError):
    """The inputs cannot be attributed: wrong type, dtype, shape or device, empty, or not finite."""


class ArgumentError(InputError, TypeError):
    """The call does not fit the function: an argument is unknown, missing, or given twice."""


class InputTypeError(InputError, AssertionError):
    """The inputs are neither a tensor nor a tuple of tensors. An AssertionError, as captum's LRP raises."""


class FormatError(InputError):
    """A saved result cannot be loaded: it is missing, damaged, too large, or a newer version wrote it."""


class TargetError(RelpropError, ValueError):
    """The target does not describe one score per sample of this model's output."""


class TargetTypeError(TargetError, AssertionError):
    """The target does not have the form that captum's LRP takes. An AssertionError, as captum's LRP raises."""


class TargetIndexError(TargetError, IndexError):
    """The target is an index outside the model's output."""


class UnsupportedOperationError(RelpropError, NotImplementedError):
    """The model called an operation for which no propagation is known."""


class ModelStateError(RelpropError, RuntimeError):
    """The model is in a state that cannot be explained (training mode, TorchScript)."""


class TracedError(ModelStateError):
    """An explanation cannot be combined with what records or transforms programs (a trace, an export, torch.func)."""


class RuleError(RelpropError, ValueError):
    """A rule has invalid parameters, cannot act on the operation it was given, or returns something else than `G`."""


class CompositeError(RelpropError, ValueError):
    """A composite names something that does not exist."""


class NonFiniteError(RelpropError, ArithmeticError):
    """The model's output, or the relevance, is NaN or infinite."""


class SeveredGraphError(RelpropError, RuntimeError):
    """The score does not depend on the inputs."""


class RelpropWarning(UserWarning):
    """A notice of a result, also in `Relevance.notices`: the result may not be what it seems."""

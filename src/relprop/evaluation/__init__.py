"""How far an explanation can be trusted, in numbers; and which composite is best for a model."""

from relprop.evaluation.call import Evaluate
from relprop.evaluation.flipping import Flipping
from relprop.evaluation.methods import Method
from relprop.evaluation.replacing import (
    Blur,
    Conditional,
    Constant,
    DataMean,
    Delete,
    Inpainting,
    Marginal,
    NoisyLinear,
    Replacement,
    SampleMean,
    Token,
    Unattended,
)
from relprop.evaluation.result import Evaluation
from relprop.evaluation.work import Metric

__all__ = [
    "Blur",
    "Conditional",
    "Constant",
    "DataMean",
    "Delete",
    "Evaluation",
    "Flipping",
    "Inpainting",
    "Marginal",
    "Method",
    "Metric",
    "NoisyLinear",
    "Replacement",
    "SampleMean",
    "Token",
    "Unattended",
    "evaluate",
]

evaluate = Evaluate()

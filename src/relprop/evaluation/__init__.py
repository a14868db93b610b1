"""How far an explanation can be trusted, in numbers; and which composite is best for a model."""

from relprop.evaluation.erasing import Erasure, SoftErasure
from relprop.evaluation.evaluator import Evaluate
from relprop.evaluation.flipping import Flipping
from relprop.evaluation.localising import Localisation
from relprop.evaluation.looking import ClassContrast, Complexity, Conservation
from relprop.evaluation.methods import Method
from relprop.evaluation.metric import Metric
from relprop.evaluation.normalised import NormalisedFlipping
from relprop.evaluation.randomising import Randomisation
from relprop.evaluation.reliability import Reliability
from relprop.evaluation.replacing import (
    Blur,
    Conditional,
    ConstantToken,
    ConstantValue,
    DataMean,
    Delete,
    Inpainting,
    Marginal,
    NoisyLinear,
    Replacement,
    SampleMean,
    Unattended,
)
from relprop.evaluation.result import Evaluation
from relprop.evaluation.sanity import Sanity, sanity
from relprop.evaluation.search import Search, search
from relprop.evaluation.sizes import Infidelity, SensitivityN
from relprop.evaluation.stability import Stability

__all__ = [
    "Blur",
    "ClassContrast",
    "Complexity",
    "Conditional",
    "Conservation",
    "ConstantToken",
    "ConstantValue",
    "DataMean",
    "Delete",
    "Erasure",
    "Evaluation",
    "Flipping",
    "Infidelity",
    "Inpainting",
    "Localisation",
    "Marginal",
    "Method",
    "Metric",
    "NoisyLinear",
    "NormalisedFlipping",
    "Randomisation",
    "Reliability",
    "Replacement",
    "SampleMean",
    "Sanity",
    "Search",
    "SensitivityN",
    "SoftErasure",
    "Stability",
    "Unattended",
    "evaluate",
    "sanity",
    "search",
]

evaluate = Evaluate()

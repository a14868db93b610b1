"""From a model, inputs and a target to relevance."""

from relprop.attribution.attribute import attribute, attribute_each
from relprop.attribution.compiled import Compiled, compile
from relprop.attribution.propagate import propagate
from relprop.attribution.result import Relevance
from relprop.attribution.survey import Survey, survey
from relprop.attribution.targets import Contrast

__all__ = [
    "Compiled",
    "Contrast",
    "Relevance",
    "Survey",
    "attribute",
    "attribute_each",
    "compile",
    "propagate",
    "survey",
]

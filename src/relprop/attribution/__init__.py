"""From a model, inputs and a target to relevance."""

from relprop.attribution.attribute import attribute, attribute_each
from relprop.attribution.compiled import Compiled, compile
from relprop.attribution.conditions import Condition, units
from relprop.attribution.propagate import propagate
from relprop.attribution.survey import Survey, survey
from relprop.results.contrast import Contrast
from relprop.results.relevance import Relevance

__all__ = [
    "Compiled",
    "Condition",
    "Contrast",
    "Relevance",
    "Survey",
    "attribute",
    "attribute_each",
    "compile",
    "propagate",
    "survey",
    "units",
]

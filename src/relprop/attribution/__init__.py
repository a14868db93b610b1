"""From a model, inputs and a target to relevance."""

from relprop.attribution.attribute import attribute, attribute_each
from relprop.attribution.compiled import Compiled, compile
from relprop.attribution.conditions import Condition, units
from relprop.attribution.propagate import propagate
from relprop.attribution.side_by_side import compare
from relprop.attribution.splices import Splice
from relprop.attribution.survey import Survey, survey
from relprop.results.comparison import Comparison
from relprop.results.contrast import Contrast
from relprop.results.detection import Detection
from relprop.results.logit import Logit
from relprop.results.over import Over
from relprop.results.place_targets import Edge, Graph, Node, Step
from relprop.results.relevance import Relevance

__all__ = [
    "Comparison",
    "Compiled",
    "Condition",
    "Contrast",
    "Detection",
    "Edge",
    "Graph",
    "Logit",
    "Node",
    "Over",
    "Relevance",
    "Splice",
    "Step",
    "Survey",
    "attribute",
    "attribute_each",
    "compare",
    "compile",
    "propagate",
    "survey",
    "units",
]

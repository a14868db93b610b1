"""Layer-wise relevance propagation for any PyTorch model, unmodified, at the cost of one gradient."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import relprop.operations as operations
from relprop import captum, composites, errors, rules
from relprop.attribution import (
    Comparison,
    Compiled,
    Condition,
    Contrast,
    Detection,
    Edge,
    Graph,
    Logit,
    Node,
    Over,
    Relevance,
    Splice,
    Step,
    Survey,
    attribute,
    attribute_each,
    compare,
    compile,
    propagate,
    survey,
    units,
)
from relprop.captum import LRP, LayerLRP
from relprop.composites import Composite, first, last, operation, path, where
from relprop.engine import register
from relprop.rules import (
    AlphaBeta,
    BetaSmooth,
    Block,
    Constant,
    Deconvnet,
    Epsilon,
    Flat,
    Gamma,
    Gate,
    GuidedBackprop,
    Native,
    Pass,
    Proportional,
    ScanConstants,
    Temperature,
    WeightedRule,
    WSquare,
    ZBox,
    Zero,
    ZeroBias,
    ZPlus,
)
from relprop.text import compare_text, explain_generation, explain_text
from relprop.version import VERSION

if TYPE_CHECKING:
    from relprop.concepts.atlas import atlas
    from relprop.concepts.graph import AttributionGraph
    from relprop.concepts.graphs import graph
    from relprop.concepts.importance import importance
    from relprop.concepts.index import Index, load_index
    from relprop.concepts.indexing import index
    from relprop.concepts.patching import patch
    from relprop.concepts.prototypes import prototypes
    from relprop.concepts.similarity import similarity
    from relprop.data.dataset_run import open_run
    from relprop.data.datasets import explain_dataset
    from relprop.evaluation import evaluate, sanity, search
    from relprop.loading.read_files import read_image, read_volume
    from relprop.results.files.loading import load
    from relprop.results.files.save import report
    from relprop.web.widget import widget

__version__ = VERSION

__all__ = [
    "LRP",
    "AlphaBeta",
    "AttributionGraph",
    "BetaSmooth",
    "Block",
    "Comparison",
    "Compiled",
    "Composite",
    "Condition",
    "Constant",
    "Contrast",
    "Deconvnet",
    "Detection",
    "Edge",
    "Epsilon",
    "Flat",
    "Gamma",
    "Gate",
    "Graph",
    "GuidedBackprop",
    "Index",
    "LayerLRP",
    "Logit",
    "Native",
    "Node",
    "Over",
    "Pass",
    "Proportional",
    "Relevance",
    "ScanConstants",
    "Splice",
    "Step",
    "Survey",
    "Temperature",
    "WSquare",
    "WeightedRule",
    "ZBox",
    "ZPlus",
    "Zero",
    "ZeroBias",
    "__version__",
    "atlas",
    "attribute",
    "attribute_each",
    "captum",
    "compare",
    "compare_text",
    "compile",
    "composites",
    "errors",
    "evaluate",
    "explain_dataset",
    "explain_generation",
    "explain_text",
    "first",
    "graph",
    "importance",
    "index",
    "last",
    "load",
    "load_index",
    "open_run",
    "operation",
    "operations",
    "patch",
    "path",
    "propagate",
    "prototypes",
    "read_image",
    "read_volume",
    "register",
    "report",
    "rules",
    "sanity",
    "search",
    "similarity",
    "survey",
    "units",
    "where",
    "widget",
]


_LATER = {
    "AttributionGraph": "relprop.concepts.graph",
    "Index": "relprop.concepts.index",
    "atlas": "relprop.concepts.atlas",
    "explain_dataset": "relprop.data.datasets",
    "graph": "relprop.concepts.graphs",
    "importance": "relprop.concepts.importance",
    "index": "relprop.concepts.indexing",
    "load": "relprop.results.files.loading",
    "load_index": "relprop.concepts.index",
    "open_run": "relprop.data.dataset_run",
    "prototypes": "relprop.concepts.prototypes",
    "patch": "relprop.concepts.patching",
    "similarity": "relprop.concepts.similarity",
    "read_image": "relprop.loading.read_files",
    "read_volume": "relprop.loading.read_files",
    "report": "relprop.results.files.save",
    "evaluate": "relprop.evaluation",
    "sanity": "relprop.evaluation",
    "search": "relprop.evaluation",
    "widget": "relprop.web.widget",
}
"""Names that need more than torch, and the module that has each: it is imported when the name is first asked for."""

_ELSEWHERE = {"explain": "attribute", "lrp": "attribute", "relevance": "attribute", "load_image": "read_image"}
"""What people try first, and what it is called."""


def __getattr__(name: str) -> Any:
    if name == "load":
        import_module("relprop.evaluation")  # its kinds of results, which no other package brings along
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    from difflib import get_close_matches

    near = [_ELSEWHERE[name]] if name in _ELSEWHERE else get_close_matches(name, __all__, 1)
    meant = f". Did you mean relprop.{near[0]}?" if near else ""
    raise AttributeError(f"module 'relprop' has no attribute {name!r}{meant}")

"""The families of operations: the default handler of each, and what relevance does there without a rule."""

from __future__ import annotations

from relprop.engine.registry import CUSTOM, REFUSED, SILENT, declare, native
from relprop.operations.activations import elementwise
from relprop.operations.followed_functions import visible
from relprop.operations.matrices import factors
from relprop.operations.normalisation import softmax
from relprop.operations.opaque import opaque

declare("linear", opaque, "LRP-0: the gradient of a linear map; the bias keeps its share")
declare("conv", None, "LRP-0, as `linear`")
declare(
    "bilinear", None, "LRP-0 in the one operand that carries relevance; shares by number of operands where several do"
)
declare("batch_norm", None, "merged with the weighted layer before it, where there is one; else a diagonal layer")
declare("activation", elementwise, "the secant from zero, `(f(x) - f(0)) / x`; the slope at 0 where `x = 0`")
declare("max_pool", native, "the winner takes all")
declare("avg_pool", native, "linear: `x_i / sum x`")
declare("product", factors(0), "equal shares to each operand that carries relevance")
declare("division", None, "all to the numerator; the divisor is a constant")
declare("sum", native, "linear: `a / (a + b)`, sign included")
declare("recurrent", None, "run again as its visible steps, the gates as constants")
declare("norm", None, "the statistic `1 / std` is a constant, the subtraction of the mean is linear")
declare("softmax", softmax, "the gradient")
declare("selection", native, "all to what was selected")
declare("structure", native, "linear: the gradient is exact")
declare(SILENT, native, "carries no relevance; its result is a constant")
declare(REFUSED, native, "no rule is known to be right; an error says what to write instead")
declare(CUSTOM, visible, "followed step by step, where its forward is made of operations that are known")

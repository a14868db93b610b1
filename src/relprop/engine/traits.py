"""Traits: what an operation does to the entries of its operand, declared where the operation is registered."""

from __future__ import annotations

MOVES = "moves entries"
SAME = "keeps values"
SCALES = "scales"
ADDS = "adds a constant"
REDUCES = "reduces"
MIXES = "mixes"
BOUNDS = "bounds"
AFFINE = "affine"
FIRST = "of the first operand"
EVERY_TRAIT = {
    MOVES: "each entry of the result is an entry of the operand, or a constant: a transpose, a slice, a padding",
    SAME: "the result has the operand's entries where they were: a copy, a cast, another view",
    SCALES: "linear in its one live operand, entry by entry: a product with a constant",
    ADDS: "the operand plus a constant",
    REDUCES: "each entry of the result is a sum of entries, with weights that are not negative: a sum, a mean",
    MIXES: "each entry of the result is a sum of entries, but their number need not shrink: a cumulative sum",
    BOUNDS: "entries are clipped to limits",
    AFFINE: "a factor and a summand for each entry of its one live operand",
    FIRST: "the other traits hold for the first operand; other live operands are constants, such as a divisor",
}
"""The traits and their meanings."""
ANY = "any operation"
ROLE_NAMES: set[str] = set()
"""The names of the roles that are declared (`relprop.engine.roles`)."""

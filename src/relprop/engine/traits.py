"""Traits: what an operation does to the entries of its operand, declared where the operation is registered."""

from __future__ import annotations

MOVES = "moves entries"
"""Each entry of the result is an entry of the operand, or a constant."""
SAME = "keeps values"
"""The result has the operand's entries where they were: a copy, a cast, another view."""
SCALES = "scales"
"""Linear in its one live operand, entry by entry."""
ADDS = "adds a constant"
"""The operand plus a constant."""
REDUCES = "reduces"
"""Each entry of the result is a sum of entries, with weights that are not negative."""
MIXES = "mixes"
"""Each entry of the result is a sum of entries, but their number need not shrink: cumulative sums, scattered sums."""
BOUNDS = "bounds"
"""Entries are clipped to limits."""
AFFINE = "affine"
"""A factor and a summand for each entry of its one live operand."""
FIRST = "of the first operand"
"""Other live operands count as constants: they give a shape, a dtype, or a divisor."""
ANY = "any operation"
EVERY_TRAIT = (MOVES, SAME, SCALES, ADDS, REDUCES, MIXES, BOUNDS, AFFINE, FIRST)

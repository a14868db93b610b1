"""Explains texts in one call: from a model, its tokenizer and a text to the relevance of tokens and words."""

from relprop.results.generations import GenerationRelevance
from relprop.results.text_comparison import TextComparison
from relprop.results.texts import TextRelevance
from relprop.results.words import Word
from relprop.text.explain import explain_text
from relprop.text.generation import explain_generation
from relprop.text.parts import Parts, find_parts
from relprop.text.side_by_side import compare_text

__all__ = [
    "GenerationRelevance",
    "Parts",
    "TextComparison",
    "TextRelevance",
    "Word",
    "compare_text",
    "explain_generation",
    "explain_text",
    "find_parts",
]

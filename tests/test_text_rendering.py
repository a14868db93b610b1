"""What is promised of tokens: read right, coloured right, and right without colour."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest
import torch

from golden import same_picture, same_text
from relprop.errors import InputError
from relprop.rendering import TokenMap, TokenMatrix, html, terminal
from relprop.rendering.marks import Line, Rect, Text
from relprop.rendering.text import STYLES, guess_style, read

CASES = {
    "wordpiece": (["[CLS]", "un", "##believ", "##able", "!", "[SEP]"], "[CLS]unbelievable![SEP]"),
    "sentencepiece": (["<s>", "▁The", "▁cap", "ital", "<0x0A>"], "<s> The capital\n"),
    "byte_level": (["The", "Ġcapital", "Ċ", "Ġcaf", "Ã©", "<|endoftext|>"], "The capital\n café<|endoftext|>"),
    "words": (["The", "movie", "was"], "The movie was"),
    "plain": (["The", " capital", " of"], "The capital of"),
}


@pytest.mark.parametrize("style", CASES)
def test_tokens_read_as_text(style: str) -> None:
    tokens, text = CASES[style]
    assert guess_style(tokens) == style
    assert "".join(token.text for token in read(tokens, np.zeros(len(tokens)))) == text
    assert set(CASES) == set(STYLES)


def test_special_tokens_are_known_or_told() -> None:
    tokens = ["[CLS]", "a", "[x]", "<pad>", "<start_of_turn>", "<|im_end|>", "<b>"]
    assert [t.special for t in read(tokens, np.zeros(7), style="plain")] == [
        True,
        False,
        False,
        True,
        True,
        True,
        False,
    ]
    told = read(["a", "b"], [0, 0], style="plain", special=[True, False])
    assert [t.special for t in told] == [True, False]


def test_half_a_letter_is_shown_as_the_tokenizer_writes_it() -> None:
    assert [t.text for t in read(["Ġcaf", "Ã", "©"], np.zeros(3))] == [" caf", "Ã", "©"]


def test_words_are_merged_and_keep_their_sum() -> None:
    tokens = CASES["wordpiece"][0]
    merged = TokenMap.of(tokens, [0.5, 1.0, 2.0, -0.5, 0.25, 0.0], merge=True)
    assert [(t.text, t.value) for t in merged.tokens] == [("[CLS]", 0.5), ("unbelievable!", 2.75), ("[SEP]", 0.0)]


def test_no_ground_covers_the_letters_of_the_token_before() -> None:
    drawing = TokenMap.of(["half", " of", "[SEP]"], [0.1, 1.0, 0.2], special=[False, False, True]).drawing()
    kinds = [type(mark) for mark in drawing.marks if not isinstance(mark, Rect) or mark.title]
    assert Rect not in kinds[kinds.index(Text) :]
    grounds = [mark for mark in drawing.marks if isinstance(mark, Rect) and mark.title]
    assert grounds[2].x > grounds[1].x + grounds[1].width  # special tokens stand apart on both sides


def test_lines_end_between_words() -> None:
    """A word of two tokens goes to the next line as a whole; one that is longer than a line does not."""
    shown = TokenMap.of([" of", " national", " inter", "group", " nii"], np.ones(5), style="plain")
    places = {mark.text.strip(): mark.y for mark in shown.drawing(125).marks if isinstance(mark, Text)}
    assert places["of"] == places["national"] < places["inter"] == places["group"] == places["nii"]
    long = TokenMap.of([" a", *["bbbbbbbb"] * 9], np.ones(10), style="plain").drawing(150)
    assert len({mark.y for mark in long.marks if isinstance(mark, Text) and mark.text.startswith("b")}) > 1


def test_features_are_summed() -> None:
    relevance = torch.randn(3, 8)
    assert np.allclose(TokenMap.of(["a", "b", "c"], relevance).values, relevance.sum(1))


@pytest.mark.parametrize("shape", [(2,), (3, 2, 2), (0,)])
def test_tokens_and_relevance_must_match(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="3 tokens"):
        TokenMap.of(["a", "b", "c"], torch.zeros(shape))
    with pytest.raises(InputError, match="style"):
        TokenMap.of(["a"], [1.0], style="bpe")


def shown() -> TokenMap:
    tokens = ["[CLS]", "not", "a", "very", "good", "movie", "\n", "<script>", "[SEP]"]
    return TokenMap.of(tokens, [0.0, -1.0, 0.02, 0.4, 0.9, 0.1, float("nan"), 0.0, -0.3], style="words")


def test_a_text_wraps_and_nothing_overlaps() -> None:
    drawing = TokenMap.of([f"word{i}" for i in range(200)], np.linspace(-1, 1, 200)).drawing(300)
    boxes = [m for m in drawing.marks if isinstance(m, Rect) and m.title]
    assert len(boxes) == 200
    assert all(box.x + box.width <= drawing.width + 0.01 for box in boxes)
    for one, other in pairwise(boxes):
        assert other.y > one.y or other.x >= one.x + one.width - 0.01


def test_signs_are_seen_without_colour() -> None:
    drawing = shown().drawing(600)
    dashed = [m.dashed for m in drawing.marks if isinstance(m, Line)]
    assert dashed == [True, False, False, False, True]  # not, very, good, movie, [SEP]
    said = terminal.tokens(shown(), colour=False)
    assert "\x1b" not in said and "not(-1)" in said and "good(+0.9)" in said and "a(" not in said


def test_a_long_token_is_cut_and_says_so() -> None:
    drawing = TokenMap.of(["x" * 1_000_000], [1.0]).drawing(200)
    text = next(m.text for m in drawing.marks if isinstance(m, Text))
    assert len(text) < 100


def test_html_holds_every_token_and_value() -> None:
    page = html.tokens_html(shown())
    assert "&lt;script&gt;" in page and "<script" not in page
    assert re.findall(r"<b class=n40 title=-1>not</b>", page)
    assert "<i title=0>[CLS]</i>" in page
    same_text(page, "tokens.html")


def test_terminal_is_what_it_was() -> None:
    same_text(terminal.tokens(shown(), colour=True), "tokens.ansi")
    same_text(terminal.tokens(shown(), colour=False), "tokens.txt")
    same_text(terminal.bars([("age", 1.5), ("a\x1b[2Jb", -0.5), ("x", float("nan"))], 10, colour=False), "bars.txt")


def test_four_thousand_tokens_fit_in_a_page() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = [f" word{i % 97}" for i in range(4000)]
    shown = TokenMap.of(tokens, torch.randn(4000, generator=generator))
    page = html.page("Text", html.tokens_html(shown))
    assert len(page.encode()) < 400_000
    assert page.count(" title=") == 4000 and page.count("<tr>") == 4000


COLUMNS = ["The", "Ġcapital", "Ġis", "ĠParis", "."]
VALUES = np.array([[0.5, 1.0, -0.2, np.nan, np.nan], [0.1, 0.0, 0.3, 0.9, np.nan]])


def test_the_matrix_of_a_generation() -> None:
    drawing = TokenMatrix.of(["ĠParis", "."], COLUMNS, VALUES, prompt=3).drawing()
    said = [m.text for m in drawing.marks if isinstance(m, Text)]
    assert (
        said[:7] == ["The", "capital", "is", "Paris", ".", "Paris", "."]
        and "+ for, - against; grey: not read yet" in said
    )
    titles = [m.title for m in drawing.marks if isinstance(m, Rect) and m.title]
    assert len(titles) == 7 and "Paris from capital: 1" in titles  # what was not read yet says nothing
    with pytest.raises(InputError, match="2 rows and 5 columns"):
        TokenMatrix.of(["a", "b"], COLUMNS, np.zeros((5, 2)))
    with pytest.raises(InputError, match="unread has the shape"):
        TokenMatrix.of(["a", "b"], COLUMNS, VALUES, unread=np.zeros((1, 5)))
    wide = TokenMatrix.of(["a"] * 3, ["b"] * 300, np.linspace(-1, 1, 900).reshape(3, 300), prompt=290).drawing()
    assert wide.width < 1300
    same_picture(wide, "matrix")
    same_picture(drawing, "matrix-small")


def test_what_is_not_read_is_neither_zero_nor_unknown() -> None:
    shown = TokenMatrix.of(["a"], ["b", "c", "d"], [[0.0, np.nan, 3.0]], unread=[[False, False, True]])
    assert shown.scale.limit == 0.0 and "1 of 2 values are not finite" in shown.note
    pixels = shown.drawing().to_image().load()
    left = next(m.x for m in shown.drawing().marks if isinstance(m, Rect) and m.edge)
    top = next(m.y for m in shown.drawing().marks if isinstance(m, Rect) and m.edge)
    colours = [pixels[int(left + 22 * c + 11), int(top + 11)] for c in range(3)]
    assert colours == [(255, 255, 255), (240, 228, 66), (0xEC, 0xEC, 0xEC)]
    assert terminal.matrix(shown, colour=False).splitlines()[1] == "a    ?  ·"


def test_signs_of_a_matrix_are_seen_without_colour() -> None:
    shown = TokenMatrix.of(["ĠParis", "."], COLUMNS, VALUES)
    assert shown.signs == [["+", "+", "-", "", ""], ["", "", "+", "+", ""]]
    assert sum(isinstance(m, Line) for m in shown.drawing().marks) >= 5 + 4


def test_a_matrix_in_a_page() -> None:
    page = html.matrix_html(TokenMatrix.of(["ĠParis", "."], COLUMNS, VALUES, prompt=3))
    same_text(page, "matrix.html")
    assert 'class=p40 title="Paris from capital: 1"' in page and page.count("class=unread") == 3
    assert "“capital” 1, “The” 0.5, “is” -0.2" in page  # read without colour
    generator = torch.Generator().manual_seed(0)
    large = TokenMatrix.of(["a"] * 100, ["b"] * 200, torch.randn(100, 200, generator=generator))
    assert len(html.page("Large", html.matrix_html(large)).encode()) < 400_000
    just = TokenMatrix.of(["Ġtoken"] * 50, ["Ġtoken"] * 100, torch.randn(50, 100, generator=generator))
    assert len(html.page("Just", html.matrix_html(just)).encode()) < 600_000


def test_a_matrix_in_a_terminal() -> None:
    shown = TokenMatrix.of(
        ["ĠParis", ".", "石油"], [*COLUMNS, "石油"], np.vstack([VALUES, VALUES[1:]])[:, [0, 1, 2, 3, 4, 4]]
    )
    same_text(terminal.matrix(shown, 40, colour=True), "matrix.ansi")
    same_text(terminal.matrix(shown, 40, colour=False), "matrix.txt")
    # More columns than the terminal has go below.
    wide = TokenMatrix.of(["a", "b"], [f"t{n}" for n in range(30)], np.ones((2, 30)))
    lines = terminal.matrix(wide, 30, colour=False).splitlines()
    assert max(map(len, lines[:-2])) <= 30 and "".join(lines).count("+9") == 60

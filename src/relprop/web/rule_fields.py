"""The fields of the rules: composites side by side, gamma, and the rule of the first layer. All parts of the page share them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from relprop.composites import NAMES
from relprop.errors import InputError
from relprop.web.answering import Desk
from relprop.web.gradio_here import gradio
from relprop.web.settings import FIRST, MOST_COMPOSITES, PageSettings

GAMMA = 0.15
"""Where the slider of gamma stands before it is moved."""


class RuleFields:
    """The fields of the rules.

    Args:
        desk: what the parts of the page share.
        bounded: whether the bounds of the input are known, which z-box needs.
    """

    def __init__(self, desk: Desk, bounded: bool) -> None:
        self.desk, self.bounded = desk, bounded

    def add(self) -> None:
        """Adds the fields."""
        gr = gradio()
        usual = PageSettings()
        self.composites = gr.Dropdown(
            ["auto", *NAMES], value=list(usual.composites), multiselect=True, max_choices=MOST_COMPOSITES,
            label="Composites, side by side", elem_id=self.desk.own("composites"),
        )  # fmt: skip
        with gr.Row():
            self.gamma = gr.Slider(
                0, 2, value=GAMMA, step=0.01, label="Gamma, of composites that have one", min_width=150, elem_id=self.desk.own("gamma"),
                interactive=True,
            )  # fmt: skip
            self.own = gr.Checkbox(
                value=True, label="Gamma as the composite says", min_width=150, elem_id=self.desk.own("own-gamma")
            )
        # Whoever moves gamma wants it to act. Keys of a slider trigger no `release`.
        self.moved = self.gamma.input(None, None, self.own, js="() => false", api_visibility="private")
        self.first = gr.Radio(
            [(name, key) for key, name in FIRST.items() if self.bounded or key != "zbox"],
            value=usual.first, label="Rule of the first layer", elem_id=self.desk.own("first"),
        )  # fmt: skip

    @property
    def fields(self) -> list[Any]:
        """The fields, in the order in which their values come."""
        return [self.composites, self.gamma, self.own, self.first]

    @property
    def events(self) -> list[Any]:
        """The events that ask again."""
        return [self.composites.input, self.moved.then, self.own.input, self.first.input]

    def values(self, values: Sequence[Any]) -> dict[str, Any]:
        """The settings that the fields hold.

        Raises:
            InputError: no composite is chosen.
        """
        composites, gamma, own, first = values
        if not composites:
            raise InputError("choose at least one composite.")
        return {"composites": composites, "gamma": None if own else gamma, "first": first}

    def restored(self, settings: PageSettings) -> list[Any]:
        """The values of the fields."""
        gamma = GAMMA if settings.gamma is None else settings.gamma
        return [list(settings.composites), gamma, settings.gamma is None, settings.first]

"""The parts of the page, for a page of one's own: `with gr.Blocks(): relprop.web.explain_block(model)`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

from relprop.signatures import public
from relprop.web.answering import Desk, answered
from relprop.web.gradio_here import gradio
from relprop.web.limits import Limits
from relprop.web.page_subject import PageSubject, subject_of

__all__ = ["explain_block", "subject_of"]


@public("relprop.web.explain_block")
def explain_block(
    model: Any,
    *,
    tokenizer: Any = None,
    labels: Sequence[str] | None = None,
    preprocess: Callable[[Any], Any] | None = None,
    size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    reads: str | None = None,
    examples: Sequence[Any] | None = None,
    limits: Limits | None = None,
) -> Any:
    """Puts a page that explains a network into a Gradio page of your own. Needs Gradio.

    Inside `with gr.Blocks() as demo:` the parts are added there. Elsewhere a page is made and returned, so that
    `relprop.web.explain_block(model).launch()` shows it.

    Args:
        model: a `torch.nn.Module` in eval mode, or the name of one as `relprop explain --model` takes it.
        tokenizer: the tokenizer of a network that reads text.
        labels: the names of its classes; None takes those that the network knows.
        preprocess: turns a Pillow image into the network's input (1, C, H, W). None resizes and normalises.
        size: the side of its pictures.
        mean: the mean of each colour, of values from 0 to 1; None is that of ImageNet.
        std: the standard deviation of each colour.
        reads: "picture", "text" or "rows"; None finds out.
        examples: what a visitor may start with: paths or Pillow images, texts, or paths of tables and arrays. None shows
            photographs for a network that reads pictures.
        limits: what a visitor may send, a `relprop.web.limits.Limits`.

    Returns:
        The `gradio.Blocks` that holds it.

    Raises:
        InputError: the arguments do not fit each other.
        ModelStateError: the model is in training mode.
        ModuleNotFoundError: Gradio is not installed: `pip install 'relprop[web]'`.
    """
    gr = gradio()
    subject = subject_of(
        model, tokenizer=tokenizer, labels=labels, preprocess=preprocess, size=size, mean=mean, std=std, reads=reads
    )
    around = gr.context.Context.root_block
    desk = Desk.of(limits)
    with (
        nullcontext(around)
        if around is not None
        else gr.Blocks(
            title="Ask a network why", analytics_enabled=False, delete_cache=(300, int(desk.limits.idle))
        ) as blocks
    ):
        add(blocks, subject, desk, examples)
    if around is None:
        blocks.queue(max_size=desk.limits.waiting)
    return blocks


def add(blocks: Any, subject: PageSubject, desk: Desk, examples: Sequence[Any] | None = None) -> None:
    """Adds the parts for one network to the page that is being made."""
    from relprop.web import picture_part, rows_part, text_part

    parts = {"picture": picture_part, "text": text_part, "rows": rows_part}
    parts[subject.reads].add(subject, desk, examples)
    blocks.unload(answered(lambda request: desk.leave(str(request.session_hash))))

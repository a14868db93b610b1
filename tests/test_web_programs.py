"""Programs ask the page: the examples of its documentation are run, and what they get is what the functions give."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import relprop
import test_web_rows
import test_web_text
import web_pages
from relprop.loading.sounds import read_sound
from relprop.web.page_subject import PageSubject, subject_of

for needed in ("gradio", "transformers"):
    pytest.importorskip(needed)
# Warnings of Gradio about pandas, in threads of its own.
pytestmark = pytest.mark.filterwarnings("ignore")
DOCS = Path(__file__).parent.parent / "docs" / "web.md"
NAMES = ("/explain", "/explain_1", "/explain_2")
"""How a page of three networks calls them; the documentation has a page of each."""


def pictures() -> PageSubject:
    """A network of pictures with the classes that the documentation names."""
    torch.manual_seed(0)
    layers = torch.nn.Conv2d(3, 2, 5, 5), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(72, 300)
    return subject_of(torch.nn.Sequential(*layers).eval(), size=32)


class Extremes(torch.nn.Module):
    """A network of tables, series and sounds: the mean, the largest and the smallest number."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(1)
        return torch.stack([x.mean(1), x.amax(1), -x.amin(1)], 1)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    loads = [
        ("pictures", pictures), ("numbers", lambda: subject_of(Extremes().eval(), reads="rows")),
        ("writer", lambda: subject_of("test_web_text:writer")),
    ]  # fmt: skip
    with web_pages.served(loads) as found:
        yield found


@pytest.fixture(scope="module")
def ran(address: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the examples leave behind, asked of the test's page, beside their files."""
    folder = tmp_path_factory.mktemp("programs")
    web_pages.photograph().save(folder / "cat.png")
    people = test_web_rows.table(folder / "people.csv", 9)
    walk = np.random.default_rng(0).normal(size=400).astype(np.float32)
    np.save(folder / "walk.npy", walk)
    (folder / "tone.wav").write_bytes(test_web_rows.wav((np.arange(900) % 50 * 300).astype(np.int16)))
    section = DOCS.read_text().split("## From a program")[1].split("\n## ")[0]
    blocks = re.findall(r"```text\n(.*?)```", section, re.DOTALL)
    space: dict[str, Any] = {
        "people": people, "walk": torch.from_numpy(walk), "tone.wav": read_sound(folder / "tone.wav").values,
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for block, name in zip(blocks, NAMES, strict=True):
            asked = block.replace("http://127.0.0.1:7860/", address).replace(
                'api_name="/explain"', f'api_name="{name}"'
            )
            assert name in asked
            exec(asked, space)
    return space


def close(found: Any, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(torch.tensor(found), wanted, rtol=1e-4, atol=1e-6)


def test_a_picture_by_its_example(ran: dict[str, Any]) -> None:
    loaded = pictures().loaded
    x = loaded.tensor(web_pages.photograph())
    R = relprop.attribute(loaded.model, x, relprop.Contrast(281, 285), composite="epsilon_plus")
    close(ran["difference"], R.values[0].sum(0))
    assert ran["answer"]["scores"][-1]["score"] == pytest.approx(float(R.score), rel=1e-4)


def test_a_table_a_series_and_a_sound_by_their_examples(ran: dict[str, Any]) -> None:
    model, rows = Extremes().eval(), ran["people"][4:5, 1:]  # without the age, and without who and label
    assert "label" not in str(ran["table"]["notices"])
    close(ran["table"]["values"][0][0], relprop.attribute(model, torch.cat([rows, torch.ones(1, 1)], 1)).values[0])
    close(ran["series"]["values"][0][0], relprop.attribute(model, ran["walk"][None, None]).values[0])
    close(ran["sound"]["values"][0][0], relprop.attribute(model, ran["tone.wav"][None], 2).values[0])


def test_texts_by_their_examples(ran: dict[str, Any]) -> None:
    model, tokenizer = test_web_text.writer()
    R = relprop.explain_text(model.eval(), tokenizer, "The capital of France is", " Paris")
    assert ran["text"]["values"][0]["tokens"] == [word.text for word in R.words]
    close(
        ran["text"]["values"][0]["relevance"], torch.tensor([word.relevance for word in R.words], dtype=torch.float32)
    )
    G = relprop.explain_generation(model, tokenizer, "The capital of France is", max_new_tokens=5)
    assert ran["written"]["values"][0]["generated"] == G.generated
    close(ran["written"]["values"][0]["relevance"], G.relevance.float())


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("/explain_2", ("",), "there is no text yet"),
        ("/explain_2", ("a", "x" * 101), "at most 100 letters"),
        ("/explain_2", ("a", None, None, "nothing"), "nothing"),
        ("/explain_2", ("a", None, None, "auto", False, None, "zbox"), "bounds of the input"),
        ("/explain_2", ("a", None, None, "auto", False, -1), "gamma is -1"),
        ("/explain_2", ("a", None, None, "auto", False, None, "composite", False, 1000), "1 to 40 tokens"),
    ],
)  # fmt: skip
def test_questions_that_cannot_be_answered(address: str, name: str, given: tuple[Any, ...], message: str) -> None:
    from gradio_client import Client

    client = Client(address, verbose=False, analytics_enabled=False)
    with pytest.raises(Exception, match=message):
        client.predict(*given, api_name=name)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"form": "x"}, "there is no form"), ({"without": ["nobody"]}, "has no column"),
        ({"without": "age"}, "a list of the names"), ({"row": 99}, "no row 99"), ({"row": 1.5}, "is its number"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_read_so(address: str, tmp_path: Path, given: dict[str, Any], message: str) -> None:
    from gradio_client import Client, handle_file

    test_web_rows.table(tmp_path / "a.csv", 9)
    client = Client(address, verbose=False, analytics_enabled=False)
    with pytest.raises(Exception, match=message):
        client.predict(handle_file(tmp_path / "a.csv"), **given, api_name="/explain_1")

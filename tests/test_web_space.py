"""The Space to copy, and the program that asks it: its files fit each other, and what it serves answers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from urllib.request import urlopen

import pytest

import relprop
import web_pages

pytest.importorskip("gradio", reason="the page needs Gradio")
pytestmark = pytest.mark.filterwarnings("ignore")  # of Gradio about pandas, in threads of its own
SPACE = Path(__file__).parent.parent / "space"


def pins() -> dict[str, str]:
    lines = [line for line in (SPACE / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    return dict(re.fullmatch(r"([a-z0-9-]+)(?:\[web\])?==([0-9.]+)", line).groups() for line in lines)  # type: ignore[union-attr,misc]


def test_every_requirement_is_pinned_and_the_front_matter_names_the_same() -> None:
    front = dict(line.split(": ", 1) for line in (SPACE / "README.md").read_text().split("---")[1].strip().splitlines())
    assert front["sdk"] == "gradio" and front["sdk_version"] == pins()["gradio"]
    assert (SPACE / front["app_file"]).is_file()
    assert len(front["short_description"]) <= 60
    assert pins()["relprop"] == relprop.__version__


@pytest.mark.skipif(version("gradio") != "6.31.0", reason="another Gradio than the Space's is installed")
@pytest.mark.slow
def test_the_space_starts_and_answers(tmp_path: Path) -> None:
    """With the packages that are installed here; `RELPROP_SPACE=1` builds an environment from its file alone."""
    python = sys.executable
    given = dict(os.environ)
    if os.environ.get("RELPROP_SPACE"):
        subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
        python = str(tmp_path / "venv" / "bin" / "python")
        wanted = (
            (SPACE / "requirements.txt")
            .read_text()
            .replace("relprop[web]==0.1.0", f"relprop[web] @ file://{SPACE.parent}")
        )
        (tmp_path / "requirements.txt").write_text(wanted)
        subprocess.run([python, "-m", "pip", "install", "-q", "-r", tmp_path / "requirements.txt"], check=True)
        given.pop("PYTHONPATH", None)
    with web_pages.free_port() as port:
        given["GRADIO_SERVER_PORT"] = str(port)
    process = subprocess.Popen([python, SPACE / "app.py"], env=given, cwd=tmp_path)
    try:
        for _ in range(600):
            assert process.poll() is None
            try:
                assert b"gradio" in urlopen(f"http://127.0.0.1:{port}/", timeout=10).read()
                break
            except OSError:
                time.sleep(0.2)
        path = tmp_path / "a.png"
        web_pages.photograph(300).save(path)
        answer = web_pages.question(f"http://127.0.0.1:{port}/", path)
        assert len(answer["classes"]) == 5
    finally:
        process.terminate()
        process.wait(20)

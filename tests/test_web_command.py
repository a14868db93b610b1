"""`relprop serve`: what it refuses before it serves anything, in one line."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import webbrowser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from relprop.cli.app import app
from relprop.cli.serving import PASSWORD, password_of
from relprop.errors import InputError

pytest.importorskip("gradio", reason="the page needs Gradio")
SMALL = ("--model", "web_pages:small")


def refused(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["serve", *map(str, arguments)])
    assert result.exit_code != 0 and "Traceback" not in result.output
    return " ".join(result.output.replace("│", " ").split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--port", 70000, *SMALL), "65535"),
        (("--port", "x", *SMALL), "valid integer"),
        (("--port", 0, "--model", "web_pages:nothing"), "could not be loaded"),
        (("--port", 0, "--model", "no_such_module_here:f"), "there is no module"),
        (("--port", 0, "--run", "no/such/run"), "could not be loaded"),
        (("--port", 0, "--source", "x", *SMALL), "belong to a run"),
        (("--port", 0, "--host", "no-such-host.invalid", *SMALL), "cannot be listened to"),
        (("--port", 0, "--auth", "no-such-file", *SMALL), "there is no file"),
        (("--port", 0, "--seconds", 0, *SMALL), "greater than or equal to 1"),
        (("--port", 0, "--waiting", 0, *SMALL), "greater than or equal to 1"),
    ],
)
def test_what_is_refused(arguments: tuple[object, ...], message: str) -> None:
    assert message in refused(*arguments)


def test_a_port_that_is_taken() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"127.0.0.1:{port} cannot be listened to" in refused("--port", port, *SMALL)


def test_the_password_comes_from_a_file_that_nobody_else_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "auth"
    file.write_text("ann:se:cret\n")
    file.chmod(0o600)
    assert password_of(file) == "ann:se:cret"
    if os.name == "posix":
        file.chmod(0o640)
        with pytest.raises(InputError, match="can be read by others"):
            password_of(file)
        file.chmod(0o600)
    for bad in ("", "ann", ":x", "ann:", "ann:x\nbob:y"):
        file.write_text(bad)
        with pytest.raises(InputError, match="must hold one line") as caught:
            password_of(file)
        assert "bob" not in str(caught.value)
    monkeypatch.setenv(PASSWORD, "bob:x")
    assert password_of(None) == "bob:x"
    monkeypatch.delenv(PASSWORD)
    assert password_of(None) is None


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.slow
def test_a_page_that_is_ended_leaves_no_folder(tmp_path: Path) -> None:
    paths = filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH")))  # where `web_pages` is found
    given = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(paths)}
    given.pop("GRADIO_TEMP_DIR", None)
    process = subprocess.Popen(
        [sys.executable, "-m", "relprop.cli", "serve", "--port", "0", *SMALL],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=given,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline().startswith("http://127.0.0.1:")
    (folder,) = tmp_path.glob("relprop-web-*")
    (folder / "a.png").write_bytes(b"a cat")
    process.terminate()
    assert process.wait(30) == -signal.SIGTERM
    process.stdout.close()
    assert not folder.exists()


@pytest.mark.filterwarnings("ignore")  # of event loops that Gradio leaves
def test_the_page_is_opened_in_the_browser_where_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    monkeypatch.setattr("uvicorn.Server.run", lambda server, sockets: [each.close() for each in sockets])
    for more, count in (((), 0), (("--open",), 1)):
        result = CliRunner().invoke(app, ["serve", "--port", "0", *SMALL, *more])
        assert result.exit_code == 0 and "http://127.0.0.1:" in result.output
        assert len(opened) == count
    assert opened[0] in result.output
    gc.collect()  # while these warnings are ignored

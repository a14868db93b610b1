"""The gallery's page: what is on it, and that what cannot be drawn is left out in so many words."""

from __future__ import annotations

import ast
import builtins
import dis
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
KINDS = {
    "photographs",
    "series",
    "tables",
    "sound",
    "volumes",
    "words",
    "classes",
    "tokens",
    "layers",
    "patches",
    "concepts",
}


@pytest.fixture
def gallery(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(ROOT)
    import gallery.__main__

    yield gallery.__main__
    for name in [name for name in sys.modules if name.partition(".")[0] in ("gallery", "examples")]:
        del sys.modules[name]


def test_it_has_thirty_maps_and_says_what_is_seen_on_each(gallery: ModuleType) -> None:
    assert len(gallery.MAPS) >= 30
    assert all(shown.title and len(shown.text) > 20 for shown in gallery.MAPS)
    files = {path.stem for path in (ROOT / "gallery" / "maps").glob("*.py")}
    assert files >= KINDS and {shown.draw.__module__.rpartition(".")[2] for shown in gallery.MAPS} >= KINDS


def test_it_uses_no_private_name_of_ours() -> None:
    for path in (ROOT / "gallery").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("relprop"):
                assert not any(alias.name.startswith("_") for alias in node.names), path


def test_it_draws_some_maps(gallery: ModuleType, tmp_path: Path) -> None:
    gallery.main(tmp_path, "odd", "head-channels")
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert page.count("<section>") == 2 and "Empty, constant and broken maps" in page
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["head-channels.png", "odd.png"]
    with Image.open(tmp_path / "odd.png") as image:
        assert image.width > 1000


def test_each_map_has_code_that_needs_nothing_else(gallery: ModuleType) -> None:
    """Every name that the code reads is one that it defines or imports, or one of Python's own."""
    from gallery.code import code

    for shown in gallery.MAPS:
        text = code(shown)
        *_, last = ast.parse(text).body
        text = text[: text.rindex(ast.unparse(last.value.func.value.func.value.func) + "()")]  # without the drawing
        names: dict[str, object] = {}
        exec(compile(text, shown.name, "exec"), names)
        compiled = [part for part in names.values() if isinstance(part, FunctionType) and part.__globals__ is names]
        assert shown.draw.__name__ in names and compiled
        for function in compiled:
            for code_of in _nested(function.__code__):
                read = {i.argval for i in dis.get_instructions(code_of) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
                assert read <= set(names) | set(dir(builtins)), (shown.name, read - set(names))


def _nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for part in code.co_consts:
        if isinstance(part, CodeType):
            yield from _nested(part)


def test_the_code_draws_the_picture(gallery: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gallery.code import code

    monkeypatch.chdir(tmp_path)
    (shown,) = gallery.named(["odd"])
    assert "@entry" not in code(shown)
    exec(compile(code(shown), "odd", "exec"), {})
    with Image.open("odd.png") as drawn:
        assert drawn.convert("RGB").tobytes() == shown.draw().to_image(2).convert("RGB").tobytes()


def test_a_page_of_the_documentation_shows_picture_and_code(
    gallery: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs")
    import pictured

    text = pictured.page(tmp_path / "gallery", ["odd", "scales"])
    assert (tmp_path / "gallery" / "odd.png").stat().st_size > 1000
    assert text.count("### ") - text.count("Left out") == text.count("<img src=") == text.count("<details>")
    assert 'src="gallery/odd.png"' in text and 'odd().to_image(2).save("odd.png")' in text
    conf = (ROOT / "docs" / "conf.py").read_text(encoding="utf-8")
    assert "pictured.page(" in conf and pictured.MARK in (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")


def test_what_lacks_its_package_is_left_out_and_said(
    gallery: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    gallery.main(tmp_path, "oil")
    captured = capsys.readouterr()
    assert "left out: News about oil" in captured.err and captured.out.startswith("0 maps")
    assert (
        "Left out: News about oil, token by token (the gallery needs the files of"
        in (tmp_path / "index.html").read_text()
    )


def test_there_is_no_other_map(gallery: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no such map: nothing; there are: coffee, "):
        gallery.main(tmp_path / "out", "nothing")
    assert not (tmp_path / "out").exists()

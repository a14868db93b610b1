"""From files to a network's input, which remembers what people see; pictures, animations and volumes out."""

from __future__ import annotations

import copy
import gzip
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import relprop
from relprop.cli.options import pictures_of
from relprop.errors import FormatError, InputError
from relprop.loading.network import picture_reading
from relprop.rendering import Options
from relprop.rendering.frames import frames
from relprop.rendering.marks import Picture
from relprop.results.remembered import ReadTensor

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 32 * 32, 3)).eval()


def as_read(path: Path, side: int) -> np.ndarray:
    """The central square, resized, by definition."""
    image = Image.open(path).convert("RGB")
    left, top = (image.width - min(image.size)) / 2, (image.height - min(image.size)) / 2
    box = (left, top, left + min(image.size), top + min(image.size))
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC, box=box))


def test_the_tensor_is_what_the_definition_says(photograph: Path) -> None:
    x = relprop.read_image(photograph, size=32)
    seen = as_read(photograph, 32)
    wanted = ((seen / 255.0 - np.array(MEAN)) / np.array(STD)).transpose(2, 0, 1)[None]
    np.testing.assert_allclose(x.numpy(), wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(x.pictures[0].permute(1, 2, 0).numpy(), seen)
    plain = relprop.read_image(str(photograph), size=32, mean=(0, 0, 0), std=(1, 1, 1))
    np.testing.assert_allclose(plain.numpy()[0].transpose(1, 2, 0), seen / 255.0, rtol=1e-5)
    assert relprop.read_image([photograph, photograph], size=32).shape == (2, 3, 32, 32)
    assert relprop.read_image(photograph, size=(20, 30)).shape == (1, 3, 20, 30)
    assert relprop.read_image(photograph, size=None).shape == (1, 3, 40, 60)
    assert relprop.read_image(Image.open(photograph), size=8).shape == (1, 3, 8, 8)


def test_the_overlay_is_drawn_on_the_photograph(photograph: Path, model: nn.Module, tmp_path: Path) -> None:
    x = relprop.read_image(photograph, size=32)
    found = relprop.attribute(model, x)
    assert torch.equal(found.values, relprop.attribute(model, torch.tensor(x.numpy())).values)
    assert type(found.values) is torch.Tensor and type(found.inputs) is torch.Tensor
    (view,) = found.views(Options())
    np.testing.assert_array_equal(np.asarray(view.picture), as_read(photograph, 32))
    assert not any("stretched" in line for line in view.lines)
    found.save(tmp_path / "kept")
    back = relprop.load(tmp_path / "kept")
    np.testing.assert_array_equal(np.asarray(back.views(Options())[0].picture), as_read(photograph, 32))
    found.save(tmp_path / "private", inputs=False)
    assert relprop.load(tmp_path / "private").pictures is None
    for name in ("map.jpg", "map.JPEG"):
        found.save(tmp_path / name)
        with Image.open(tmp_path / name) as image:
            assert image.format == "JPEG" and image.size == found.to_image().size


def test_it_remembers_through_what_people_do_with_it(photograph: Path, model: nn.Module) -> None:
    x = relprop.read_image([photograph, photograph], size=32)
    for same in (
        x.to(torch.float64),
        x.double(),
        x.to("cpu"),
        x.clone(),
        x.detach(),
        x.contiguous(),
        x.requires_grad_(False),
    ):
        assert torch.equal(same.pictures, x.pictures), same.dtype
    assert torch.equal(x[:1].pictures, x.pictures[:1]) and torch.equal(x[[1]].pictures, x.pictures[[1]])
    assert torch.cat([x, x[:1]]).pictures.shape == (3, 3, 32, 32)
    assert type(torch.cat([x, torch.zeros(1, 3, 32, 32)])) is torch.Tensor
    assert type(torch.cat([x, x], 1)) is torch.Tensor
    for other in (x + 1, x[0], x.mean(), x.flatten(1), model(x), x.flip(3)):
        assert type(other) is torch.Tensor
    for again in (copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        assert torch.equal(again, x) and torch.equal(again.pictures, x.pictures)
    batched = relprop.attribute(model, x, batch_size=1)
    assert batched.pictures.shape == (2, 3, 32, 32) and batched[1].pictures.shape == (1, 3, 32, 32)
    named = relprop.attribute(lambda picture: model(picture), {"picture": x})
    assert named.pictures is not None


class Normalize:
    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)

    def __call__(self, t: torch.Tensor) -> torch.Tensor:
        return (t - 0.5) / 0.25


class Compose:
    """As torchvision's and timm's: steps in `transforms`."""

    def __init__(self, *steps: Any) -> None:
        self.transforms = steps

    def __call__(self, image: Any) -> Any:
        for step in self.transforms:
            image = step(image)
        return image


def scaled(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image.resize((16, 16)), dtype=np.float32) / 255).permute(2, 0, 1)


class Processor:
    """As those of transformers."""

    image_mean, image_std, do_normalize = [0.5] * 3, [0.25] * 3, True

    def __call__(self, images: Image.Image, return_tensors: str) -> dict[str, torch.Tensor]:
        assert return_tensors == "pt"
        return {"pixel_values": ((scaled(images) - 0.5) / 0.25)[None]}


@pytest.mark.parametrize(
    "transform", [Compose(scaled, Normalize()), Processor(), scaled], ids=["compose", "processor", "bare"]
)
def test_a_networks_own_preprocessing(photograph: Path, transform: Any) -> None:
    x = relprop.read_image(photograph, transform=transform)
    picture = scaled(Image.open(photograph))
    expected = picture if transform is scaled else (picture - 0.5) / 0.25
    torch.testing.assert_close(torch.tensor(x.numpy())[0], expected)
    np.testing.assert_allclose(x.pictures[0].numpy() / 255, picture.numpy(), atol=1 / 500)


def test_a_processor_of_transformers(photograph: Path) -> None:
    transformers = pytest.importorskip("transformers")
    try:
        processor = transformers.ViTImageProcessor(size={"height": 24, "width": 24})
    except (ImportError, AttributeError) as error:  # what it needs differs from version to version
        pytest.skip(str(error))
    try:
        x = relprop.read_image(photograph, transform=processor)
    except ImportError as error:
        pytest.skip(str(error))
    assert x.shape == (1, 3, 24, 24) and x.pictures.dtype == torch.uint8


def test_a_network_of_grey_pictures(photograph: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16 * 16, 3)).eval()
    seen = np.asarray(Image.fromarray(as_read(photograph, 16)).convert("L"))
    x = relprop.read_image(photograph, size=16, mean=(0.13,), std=(0.31,))
    np.testing.assert_allclose(x[0, 0].numpy(), (seen / 255.0 - 0.13) / 0.31, rtol=1e-5, atol=1e-5)
    R = relprop.attribute(model, x, 0)
    assert R.values.shape == (1, 1, 16, 16)
    assert all(np.array_equal(channel.numpy(), seen) for channel in R.pictures[0])
    R.save(tmp_path / "map.png")
    own = relprop.read_image(photograph, transform=lambda image: x[0] * 0.31 + 0.13)
    assert own.shape == (1, 1, 16, 16) and np.abs(own.pictures[0, 1].numpy().astype(int) - seen).max() <= 1
    pictures = pictures_of(16, "0.13", "0.31")
    tensor, shown = picture_reading(model, pictures)
    torch.testing.assert_close(tensor(Image.open(photograph)), x.as_subclass(torch.Tensor))
    assert np.array_equal(np.asarray(shown(Image.open(photograph)))[..., 1], seen)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "size is a side in pixels"),
        ({"size": "big"}, "size is a side in pixels"),
        ({"mean": 0.5}, "mean is three numbers"),
        ({"std": (1, 1, 0)}, "std must be above 0"),
        ({"mean": (0.5,)}, "as many numbers as each other"),
        ({"mean": (0.5, 0.5), "std": (1, 1)}, "mean is three numbers, .*or .number,. for grey"),
        ({"transform": Compose(scaled, lambda t: t * 9 - 4)}, "does not say how it normalises"),
        (
            {"transform": Compose(scaled, lambda t: t * 9 - 4), "mean": MEAN, "std": STD},
            "undoing them does not give a picture",
        ),
        ({"transform": lambda image: image}, "must give a tensor"),
        ({"transform": lambda image: torch.zeros(16, 16)}, "real numbers"),
        ({"transform": lambda image: {"pixels": 1}}, "no pixel_values"),
    ],
)
def test_bad_arguments(photograph: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        relprop.read_image(photograph, **arguments)


def test_bad_pictures(photograph: Path, tmp_path: Path) -> None:
    Image.new("RGB", (10, 10)).save(tmp_path / "small.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    for path, message, more in (
        ([photograph, tmp_path / "small.png"], "differ in size", {"size": None}),
        ([], "is empty", {}),
        (3, "takes the path of a picture", {}),
        (tmp_path / "missing.png", "there is no file", {}),
        (tmp_path / "broken.png", "is not a picture", {}),
    ):
        with pytest.raises(InputError, match=message):
            relprop.read_image(path, **more)


def test_damaged_pictures_of_a_folder_are_refused(photograph: Path, model: nn.Module, tmp_path: Path) -> None:
    import json

    relprop.attribute(model, relprop.read_image(photograph, size=32)).save(tmp_path / "kept")
    path = tmp_path / "kept" / "manifest.json"
    good = json.loads(path.read_text())
    for change in ({"pictures": [1]}, {"pictures": good["content"]["score"]}, {"affine": [1]}):
        content = {**good["content"], **change}
        path.write_text(json.dumps({**good, "content": content}))
        with pytest.raises(FormatError):
            relprop.load(tmp_path / "kept")


# --------------------------------------------------------------------------------------------- volumes and videos


@pytest.fixture
def scan(tmp_path: Path) -> Any:
    nibabel = pytest.importorskip("nibabel")
    voxels = np.random.default_rng(0).normal(size=(6, 8, 5)).astype(np.float32)
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    affine[:3, 3] = (-10, 4, 7)
    nibabel.save(nibabel.Nifti1Image(voxels, affine), tmp_path / "scan.nii.gz")
    return tmp_path / "scan.nii.gz", voxels, affine


@pytest.fixture
def cube() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(1, 2, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 240, 2)).eval()


def test_nifti_in_and_out(scan: Any, cube: nn.Module, tmp_path: Path) -> None:
    import nibabel

    path, voxels, affine = scan
    x = relprop.read_volume(path, mean=1.0, std=2.0)
    np.testing.assert_allclose(x.numpy()[0, 0], (voxels - 1) / 2, rtol=1e-6)
    found = relprop.attribute(cube, x.to(torch.float32), 1)
    for name in ("map.nii", "map.nii.gz"):
        found.save(tmp_path / name)
        back = nibabel.load(tmp_path / name)
        np.testing.assert_array_equal(back.affine, affine)
        np.testing.assert_array_equal(np.asarray(back.dataobj), found.values[0, 0].numpy())
    found.save(tmp_path / "kept")
    relprop.load(tmp_path / "kept").save(tmp_path / "again.nii.gz")
    assert (tmp_path / "again.nii.gz").read_bytes() == (tmp_path / "map.nii.gz").read_bytes()
    two = relprop.attribute(cube, torch.randn(2, 1, 6, 8, 5), 1)
    with pytest.raises(InputError, match=r"Save one sample"):
        two.save(tmp_path / "two.nii")
    two[0].save(tmp_path / "one.nii")
    np.testing.assert_array_equal(nibabel.load(tmp_path / "one.nii").affine, np.eye(4))
    with pytest.raises(InputError, match="takes no options"):
        found.save(tmp_path / "map.nii", percentile=99)


def test_bad_volumes(scan: Any, tmp_path: Path) -> None:
    (tmp_path / "broken.nii.gz").write_bytes(gzip.compress(b"no volume"))
    for path, message in (
        (tmp_path / "missing.nii", "there is no file"),
        (tmp_path / "photo.png", "a volume is a .nii"),
        (tmp_path / "broken.nii.gz", "is not a NIfTI file"),
    ):
        with pytest.raises(InputError, match=message):
            relprop.read_volume(path)
    with pytest.raises(InputError, match="std is above 0"):
        relprop.read_volume(scan[0], std=0)


def test_gif_of_a_volume(cube: nn.Module, tmp_path: Path) -> None:
    found = relprop.attribute(cube, torch.randn(1, 1, 6, 8, 5), 1)
    found.save(tmp_path / "map.gif", rate=4.0)
    with Image.open(tmp_path / "map.gif") as image:
        assert image.n_frames == 6 and image.info["duration"] == 250
        frames = []
        for n in range(6):
            image.seek(n)
            frames.append(np.asarray(image.convert("RGB")))
    assert len({frame.tobytes() for frame in frames}) == 6
    two = relprop.attribute(cube, torch.randn(2, 1, 6, 8, 5), 1)
    with pytest.raises(InputError, match="save one sample"):
        two.save(tmp_path / "two.gif")
    with pytest.raises(InputError, match="rate="):
        found.save(tmp_path / "map.gif", rate=-1.0)
    table = relprop.attribute(nn.Linear(3, 2).eval(), torch.randn(1, 3))
    with pytest.raises(InputError, match="drawn as table"):
        table.save(tmp_path / "table.gif")


def test_a_video_is_in_colour() -> None:
    video = torch.zeros(3, 4, 6, 6)
    video[0], video[2, :, 3:] = 1, 1  # red above, magenta below
    drawn = frames(torch.ones(3, 4, 6, 6) * 1e-9, video, limit=1.0)
    first = next(mark.image for mark in drawn[2].marks if isinstance(mark, Picture))
    assert len(drawn) == 4
    assert first.getpixel((0, 0)) == (255, 0, 0) and first.getpixel((0, 5)) == (255, 0, 255)
    with pytest.raises(InputError, match="they must be the same"):
        frames(torch.ones(3, 4, 6, 6), video[:, :2])


def test_a_read_tensor_is_a_tensor(photograph: Path) -> None:
    x = relprop.read_image(photograph, size=8)
    assert isinstance(x, torch.Tensor) and isinstance(x, ReadTensor)
    assert "tensor" in repr(x).lower()
    assert x.shape == (1, 3, 8, 8) and x.ndim == 4 and float(x.sum()) == pytest.approx(float(x.numpy().sum()), rel=1e-4)


def test_a_comparison_keeps_the_photograph(photograph: Path, model: nn.Module, tmp_path: Path) -> None:
    found = relprop.compare(model, relprop.read_image(photograph, size=32), 1, ["epsilon", "epsilon_plus"])
    found.save(tmp_path / "kept")
    back = relprop.load(tmp_path / "kept")
    assert torch.equal(back[0, 1].pictures, found[0, 1].pictures)
    np.testing.assert_array_equal(np.asarray(back.to_image()), np.asarray(found.to_image()))

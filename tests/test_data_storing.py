"""What is stored of a run: the bytes of a shard, the numbers in it, and what making them takes."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import relprop

pytest.importorskip("zarr")

import zarr

from relprop.data.keep import encode, of_input
from relprop.data.sample_job import _finite
from relprop.data.shards import Spec, shard

SPEC = Spec("maps", (20, 30), "float16", ("height", "width"))


def maps(count: int = 6) -> np.ndarray:
    return np.random.default_rng(0).laplace(size=(count, 20, 30)).astype(np.float32)


@pytest.mark.parametrize("count", [6, 4])
def test_a_shard_is_what_zarr_writes(tmp_path: Path, count: int) -> None:
    rows, _ = encode(maps(count), "float16")
    array = zarr.create_array(
        str(tmp_path / "a"), shape=(6, 20, 30), shards=(6, 20, 30), chunks=(1, 20, 30), dtype="float16", fill_value=0.0,
        compressors=zarr.codecs.BloscCodec(typesize=2, cname="zstd", clevel=1, shuffle="bitshuffle"),
        config={"write_empty_chunks": True},
    )  # fmt: skip
    array[:] = np.concatenate([rows, np.zeros((6 - count, 20, 30), np.float16)])
    assert bytes(shard(SPEC, rows, 6)) == (tmp_path / "a" / "c" / "0" / "0" / "0").read_bytes()


def test_a_shard_is_made_where_an_event_loop_runs() -> None:
    """As in a notebook."""
    rows, _ = encode(maps(), "float16")

    async def cell() -> bytes:
        return bytes(shard(SPEC, rows, 6))

    assert asyncio.run(cell()) == bytes(shard(SPEC, rows, 6))


def test_an_error_of_the_codec_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: Any) -> Any:
        raise MemoryError("no room")

    monkeypatch.setattr(zarr.codecs.BloscCodec, "_encode_sync", fail)
    with pytest.raises(MemoryError, match="no room"):
        shard(SPEC, encode(maps(), "float16")[0], 6)


def test_no_other_thread_compresses(monkeypatch: pytest.MonkeyPatch) -> None:
    where, real = set(), zarr.codecs.BloscCodec._encode_sync

    def seen(*given: Any) -> Any:
        where.add(threading.get_ident())
        return real(*given)

    monkeypatch.setattr(zarr.codecs.BloscCodec, "_encode_sync", seen)
    shard(SPEC, encode(maps(), "float16")[0], 6)
    assert where == {threading.get_ident()}


def test_float16_is_rounded_as_numpy_rounds_it() -> None:
    """Of any size, ties and numbers below the normal ones among them."""
    chance = np.random.default_rng(0)
    sizes = 10.0 ** chance.uniform(-9, 0, (50, 4000))
    ties = np.arange(2048, dtype=np.uint16).view(np.float16).astype(np.float32)[None].repeat(50, 0)
    ties = (ties + np.nextafter(ties.astype(np.float16), np.float16(1)).astype(np.float32)) / 2
    values = np.concatenate([sizes * chance.choice([-1, 1], sizes.shape), ties, np.ones((50, 1))], 1).astype(np.float32)
    stored, scale = encode(values, "float16")
    assert scale is not None and (scale == 1).all()
    assert (stored.view(np.uint16) == values.astype(np.float16).view(np.uint16)).all()


@pytest.mark.parametrize("form", ["float16", "int8"])
@pytest.mark.parametrize("shape", [(3, 0), (0, 4), (5,), (2, 3, 4)])
def test_maps_of_any_shape_are_encoded(form: str, shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    stored, scale = encode(values, form)
    assert stored.shape == shape and stored.dtype == form and scale is not None and scale.shape == shape[:1]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_an_entry_that_is_no_number_is_seen(bad: float, dtype: torch.dtype) -> None:
    x = torch.ones(3, 50, dtype=dtype)
    assert _finite(x)
    x[1, 7] = bad
    assert not _finite(x)
    x[2, 9] = -bad
    assert not _finite(x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_numbers_whose_sum_is_too_large_are_numbers(dtype: torch.dtype) -> None:
    assert _finite(torch.full((3, 50), torch.finfo(dtype).max, dtype=dtype))
    assert _finite(torch.arange(5))


def test_a_picture_is_cut_out_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The part of it that the network sees is for those who draw it."""
    from relprop.loading import network

    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    for n in range(3):
        Image.fromarray(pixels + n).save(tmp_path / f"{n}.png")
    cut, real = [], network.square
    monkeypatch.setattr(network, "square", lambda *given: cut.append(given) or real(*given))
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    relprop.explain_dataset(sorted(tmp_path.glob("*.png")), model, tmp_path / "maps", progress=False)
    assert len(cut) == 3 + 1  # the first one also tells what a run stores


def test_a_file_that_grew_too_large_is_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from relprop.zoo import images

    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels[:9, :9]).save(tmp_path / "a.png")
    Image.fromarray(pixels).save(tmp_path / "b.png")
    monkeypatch.setattr(images, "MAX_BYTES", 1000)
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    run = relprop.explain_dataset(tmp_path, model, tmp_path / "maps", progress=False)
    assert list(run.quarantined) == ["b.png"] and "more than the" in run.quarantined["b.png"]


def test_bytes_and_time_per_map() -> None:
    some = np.random.default_rng(0).laplace(size=(64, 224, 224)).astype(np.float32)
    for form, blocks, most in (("float16", 224, 92.2), ("float16", 28, 1.6), ("float16", 14, 0.5)):
        stored, _ = encode(of_input(torch.from_numpy(some)[:, None], f"sum:{blocks}").numpy(), form)
        start = time.process_time()
        content = shard(Spec("maps", stored.shape[1:], "float16", ("height", "width")), stored, 64)
        assert len(content) / 64 / 1024 <= most + 0.06  # noise, whose mantissas do not compress
        assert (time.process_time() - start) / 64 < 0.02

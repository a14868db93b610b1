"""Where the samples of a run come from: tables, tar files, data sets of columns."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

import relprop
from relprop.errors import InputError

pytest.importorskip("zarr")

from relprop import data

ROWS = torch.randn(11, 4, generator=torch.Generator().manual_seed(2))
NAMES = ["a", "b", "c", "d"]


def table_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).eval()


def picture_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)).eval()


def explain(source: Any, folder: Path, model: nn.Module | None = None, **settings: Any) -> data.DatasetRun:
    settings = {"batch_size": 4, "unit": 8, "progress": False, "number_format": "float32", **settings}
    return relprop.explain_dataset(source, model or table_network(), folder, **settings)


def small(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image.convert("RGB").resize((8, 8)), np.float32)).permute(2, 0, 1) / 255


def rows() -> list[dict[str, Any]]:
    return [
        {**dict(zip(NAMES, row.tolist(), strict=True)), "name": f"row-{n}", "label": n % 3, "other": (n + 1) % 3}
        for n, row in enumerate(ROWS)
    ]


def written(path: Path, content: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in content))
    elif path.suffix == ".csv":
        lines = [",".join(content[0]), *(",".join(map(str, row.values())) for row in content)]
        path.write_text("\n".join(lines) + "\n")
    else:
        arrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(arrow.Table.from_pylist(content), path)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_rows_of_numbers(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path / f"rows{suffix}", rows())
    run = explain(path, tmp_path / "maps", target="other", key="name", column=NAMES)
    expected = relprop.attribute(table_network(), ROWS, [(n + 1) % 3 for n in range(11)])
    assert run.keys() == [f"row-{n}" for n in range(11)]
    assert run.table["target"].tolist() == [(n + 1) % 3 for n in range(11)]
    assert np.allclose(np.stack([run[key].map for key in run.keys()]), expected.values.numpy(), atol=1e-6)  # noqa: SIM118
    by_label = explain(path, tmp_path / "label", target="label", column=NAMES)
    assert by_label.table["target"].tolist() == [n % 3 for n in range(11)] and by_label.keys()[3] == "3"
    with pytest.raises(InputError, match=r"whose column is \['a'"):
        explain(path, tmp_path / "label", target="label", column=list(reversed(NAMES)))


def test_columns_of_numbers_are_found(tmp_path: Path) -> None:
    run = explain(written(tmp_path / "rows.csv", rows()), tmp_path / "maps", target="other")
    assert run["0"].map.shape == (4,) and run.table["target"][1] == 2


def test_a_cell_that_is_no_number_is_one_samples_fault(tmp_path: Path) -> None:
    content = rows()
    content[5]["b"] = "much"
    run = explain(written(tmp_path / "rows.csv", content), tmp_path / "maps", target="other", column=NAMES)
    assert run.quarantined == {"5": "'much' in column 'b' is not a number."}


def photographs(folder: Path) -> list[str]:
    folder.mkdir()
    for n in range(3):
        pixels = np.random.default_rng(n).integers(0, 255, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{n}.png")
    return [f"{folder.name}/{n}.png" for n in range(3)]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_paths_of_pictures_are_relative_to_the_table(tmp_path: Path, suffix: str) -> None:
    paths = photographs(tmp_path / "photos")
    table = written(tmp_path / f"pictures{suffix}", [{"file_name": path, "label": n} for n, path in enumerate(paths)])
    run = explain(table, tmp_path / "maps", picture_network(), target="label", transform=small)
    same = explain(tmp_path / "photos", tmp_path / "same", picture_network(), target=[0, 1, 2], transform=small)
    assert run.keys() == paths
    assert run.table["score"].tolist() == same.table["score"].tolist()


def shard(path: Path, names: list[str], **more: bytes) -> Path:
    with tarfile.open(path, "w") as file:
        for n, name in enumerate(names):
            picture = io.BytesIO()
            Image.fromarray(np.random.default_rng(n).integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(picture, "PNG")
            for kind, content in {"png": picture.getvalue(), "cls": str(n).encode(), **more}.items():
                member = tarfile.TarInfo(f"{name}.{kind}")
                member.size = len(content)
                file.addfile(member, io.BytesIO(content))
    return path


def test_tar_files(tmp_path: Path) -> None:
    paths = [shard(tmp_path / "0.tar", ["x/a", "x/b"]), shard(tmp_path / "1.tar", ["x/c", "../d"])]
    run = explain(paths, tmp_path / "maps", picture_network(), target="label", transform=small, loaders=2)
    assert run.keys() == ["x/a", "x/b", "x/c", "../d"] and run.table["target"].tolist() == [0, 1, 0, 1]
    photographs(tmp_path / "photos")
    same = explain(tmp_path / "photos", tmp_path / "same", picture_network(), target=[0, 1, 2], transform=small)
    assert run["x/b"].score == same["1.png"].score
    assert {path.name for path in tmp_path.iterdir()} == {"0.tar", "1.tar", "maps", "photos", "same"}
    with pytest.raises(InputError, match=r"keys must differ.*'x/a'"):
        explain([paths[0], shard(tmp_path / "2.tar", ["x/a"])], tmp_path / "twice", picture_network())
    broken = tmp_path / "broken.tar"
    broken.write_bytes(b"no tar file" * 100)
    with pytest.raises(InputError, match="is not a tar file that can be read"):
        explain(broken, tmp_path / "broken", picture_network())


class Columns(Dataset):
    column_names = ["id", "image", "label"]  # noqa: RUF012

    def __len__(self) -> int:
        return 5

    def __getitem__(self, n: int) -> dict[str, Any]:
        pixels = np.random.default_rng(n).integers(0, 255, (20, 30, 3), dtype=np.uint8)
        return {"id": f"no {n}", "image": Image.fromarray(pixels), "label": np.int64(n % 3)}


def test_a_data_set_of_columns(tmp_path: Path) -> None:
    run = explain(Columns(), tmp_path / "maps", picture_network(), target="label", key="id", transform=small)
    assert run.keys() == [f"no {n}" for n in range(5)] and run.table["target"].tolist() == [0, 1, 2, 0, 1]


def test_a_data_set_of_hugging_face(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    found = datasets.Dataset.from_dict({"x": ROWS.tolist(), "label": [n % 3 for n in range(11)]}).with_format("torch")
    run = explain(found, tmp_path / "maps", target="label", column="x")
    expected = relprop.attribute(table_network(), ROWS, [n % 3 for n in range(11)])
    assert np.allclose(run.table["score"], expected.score.numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("content", "settings", "said"),
    [
        ("", {}, "is empty: it has no rows"),
        ("a,b\n", {}, "is empty: it has no rows"),
        ("a,b\n1\n", {}, "row 0 has 1 cells for 2 columns"),
        ("name\nx\n", {}, "no column of .* holds pictures or numbers"),
        ("a,b\n1,2\n", {"column": "z"}, "has no column 'z'; it has a, b"),
        ("a,b\n1,2\n", {"column": 3}, "column is the name of a column"),
        ("a,b\n1,2\n", {"key": "z"}, "key='z' is not a column"),
        ("a,b\n1,2\n1,3\n", {"key": "a"}, "keys must differ, and these stand for several samples: '1'"),
    ],
)
def test_tables_that_do_not_fit(tmp_path: Path, content: str, settings: dict[str, Any], said: str) -> None:
    (tmp_path / "x.csv").write_text(content)
    with pytest.raises(InputError, match=said):
        explain(tmp_path / "x.csv", tmp_path / "maps", **settings)
    assert not (tmp_path / "maps").exists()

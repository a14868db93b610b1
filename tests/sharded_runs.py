"""A run of a sharded model in two processes, held against that of the whole model: started by test_data_sharded.py.

python tests/sharded_runs.py RANK WORLD FILE FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

import relprop
import sharded
from relprop.errors import InputError

X = torch.linspace(-1, 1, 11 * 5 * 16).reshape(11, 5, 16).sin()
SETTINGS: dict[str, Any] = {
    "target": (4, 3), "composite": "attnlrp", "keep": {"input": "full"}, "batch_size": 2, "unit": 4, "progress": False,
}  # fmt: skip


def explained(model: Any, folder: Path, **settings: Any) -> Any:
    return relprop.explain_dataset(X, model, folder, **{**SETTINGS, **settings})


def main(rank: int, world: int, file: str, folder: Path) -> None:
    with sharded.processes(rank, world, dist.FileStore(file, world)) as mesh:
        model = sharded.sharded(sharded.decoders(), mesh)
        explained(model, folder / "maps", part="2/3")
        first = folder / "maps" / "units" / "000001.json"
        before = first.stat().st_mtime_ns
        run = explained(model, folder / "maps")
        assert first.stat().st_mtime_ns == before
        dist.barrier()
        assert run.status()["done"] == 11 and not run.verify()
        with pytest.raises(InputError, match="leave out fresh="):
            explained(model, folder / "maps", fresh=True)
        with pytest.raises(InputError, match="holds another run, whose batch_size is 2"):
            explained(model, folder / "maps", batch_size=4)
        broken = X.clone()
        broken[[1, 6]] = float("nan")
        run = relprop.explain_dataset(broken, model, folder / "broken", **SETTINGS)
        assert list(run.quarantined) == ["1", "6"]
        with pytest.raises(InputError, match="max_bad allows"):
            relprop.explain_dataset(broken, model, folder / "few", **{**SETTINGS, "max_bad": 0})
        dist.barrier()
    print("the runs agree")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))

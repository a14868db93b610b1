"""Object stores for tests: their objects are files of a folder, so that other processes see them.

    bucket://FOLDER/NAME    an object is put whole, and "create" succeeds for one process alone, as in S3 or GCS
    plain://FOLDER/NAME     an object is put whole; "create" is looked up first, as fsspec does it where a store cannot

python tests/buckets.py ADDRESS PROCESSES [PLACE]   explains samples there; it is killed at PLACE: made, shard or record
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem


class Bucket(LocalFileSystem):
    """Objects that are whole or not there."""

    protocol = "bucket"

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        text = os.fspath(path)
        return "/" + text.partition("://")[2].strip("/") if "://" in text else text.rstrip("/") or "/"

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **settings: Any) -> None:
        place = Path(self._strip_protocol(path))
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=tempfile.gettempdir(), delete=False) as part:
            part.write(value)
        self._put(Path(part.name), place, mode)

    def _put(self, part: Path, place: Path, mode: str) -> None:
        if mode == "create":
            os.link(part, place)  # fails if it is there
            part.unlink()
        else:
            os.replace(part, place)


class PlainBucket(Bucket):
    """A store without a request that only one process succeeds with."""

    protocol = "plain"

    def _put(self, part: Path, place: Path, mode: str) -> None:
        if mode == "create" and place.exists():
            raise FileExistsError(place)
        os.replace(part, place)


def register() -> None:
    """Makes fsspec know them."""
    for kind in (Bucket, PlainBucket):
        fsspec.register_implementation(kind.protocol, kind, clobber=True)


register()


def network() -> Any:
    """The network of test runs; whoever names it in another process has the buckets registered there."""
    import killed_runs

    return killed_runs.network()


def main(address: str, processes: int, place: str) -> None:
    """Explains, and is killed at a place."""
    import killed_runs
    import relprop
    from relprop.data import object_stores

    real = object_stores.ObjectPlace.write

    def write(self: Any, name: str, content: bytes) -> None:
        ends = {"made": name.endswith("zarr.json"), "shard": "/c/2" in name, "record": name.endswith("000002.json")}
        if ends.get(place):
            os.kill(os.getpid(), signal.SIGKILL)
        real(self, name, content)

    object_stores.ObjectPlace.write = write  # type: ignore[method-assign]
    arguments: Any = {**killed_runs.ARGUMENTS, "processes": processes}
    relprop.explain_dataset(killed_runs.samples(), "buckets:network", address, **arguments)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "")

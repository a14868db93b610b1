"""Two Ray nodes in network namespaces of this machine, and a driver that explains on them; for test_data_ray.py.

python tests/ray_nodes.py ADDRESS FOLDER
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from torch import Tensor
from torch.utils.data import Dataset

HEAD, OTHER = "10.203.77.1", "10.203.77.2"
PORT = 6391


class Slow(Dataset):
    """Samples that take a while, so that there is something to kill."""

    def __len__(self) -> int:
        return 60

    def __getitem__(self, n: int) -> Tensor:
        from killed_runs import samples

        time.sleep(0.15)
        return samples()[n]


class Namespaces:
    """Two network namespaces that are joined by a cable."""

    def __init__(self) -> None:
        self.names = [f"relprop{os.getpid()}{side}" for side in "ab"]

    def make(self) -> None:
        """Makes them.

        Raises:
            OSError: they cannot be made here.
        """
        try:
            for name in self.names:
                self._ip("netns", "add", name)
            ends = [f"rp{os.getpid()}{side}" for side in "ab"]
            self._ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
            for name, end, address in zip(self.names, ends, (HEAD, OTHER), strict=True):
                self._ip("link", "set", end, "netns", name)
                self._ip("-n", name, "address", "add", f"{address}/24", "dev", end)
                for device in ("lo", end):
                    self._ip("-n", name, "link", "set", device, "up")
        except (subprocess.CalledProcessError, FileNotFoundError) as error:
            self.remove()
            raise OSError(f"network namespaces cannot be made here: {error}") from error

    def _ip(self, *words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    def run(self, side: int, *words: object, **settings: object) -> subprocess.Popen[bytes]:
        """Starts a command in one of them."""
        tests = Path(__file__).parent
        path = os.pathsep.join([str(tests), str(tests.parent / "src"), os.environ.get("PYTHONPATH", "")])
        away = {
            "OMP_NUM_THREADS": "1",
            "RAY_raylet_start_wait_time_s": "120",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "disabled",  # nobody else reaches this network
        }
        return subprocess.Popen(
            ["ip", "netns", "exec", self.names[side], *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**_without_proxy(), **away, "PYTHONPATH": path}, **settings,
        )  # type: ignore[call-overload, no-any-return]  # fmt: skip

    def inside(self) -> dict[int, str]:
        """The processes in them, with their command lines."""
        nets = set()
        for name in self.names:
            with suppress(OSError):
                nets.add(os.stat(f"/run/netns/{name}").st_ino)
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if os.stat(path / "ns" / "net").st_ino in nets:
                    found[int(path.name)] = (
                        (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    )
        return found

    def remove(self) -> None:
        """Ends what runs in them, and removes them."""
        for process in self.inside():
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        for name in self.names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def _without_proxy() -> dict[str, str]:
    """The environment without proxies, which are not reached from a namespace."""
    return {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}


@contextmanager
def cluster() -> Iterator[Namespaces]:
    """Two nodes with one CPU each.

    Raises:
        OSError: there are no namespaces, or Ray does not start in them.
    """
    both = Namespaces()
    both.make()
    with tempfile.TemporaryDirectory(prefix="rr") as place:  # sockets need a short path
        try:
            where = f"{HEAD}:{PORT}"
            head = ["--head", "--port", PORT, "--temp-dir", place, "--include-dashboard", "false"]
            for side, words in enumerate((head, ["--address", where])):
                started = both.run(
                    side, sys.executable, "-m", "ray.scripts.scripts", "start", *words, "--node-ip-address", (HEAD, OTHER)[side], "--num-cpus", 1,
                    "--disable-usage-stats", "--object-store-memory", 80 * 2**20,
                )  # fmt: skip
                out, _ = started.communicate(timeout=150)
                if started.returncode:
                    raise OSError(f"Ray does not start: {out.decode()[-1000:]}")
            yield both
        finally:
            both.remove()


def main(address: str, folder: str) -> None:
    import ray

    import relprop

    ray.init(address=address, log_to_driver=False)
    assert len([node for node in ray.nodes() if node["Alive"]]) == 2
    settings = {"batch_size": 2, "unit": 4, "engine": "ray", "processes": 2}
    relprop.explain_dataset(Slow(), "killed_runs:network", folder, **settings)


if __name__ == "__main__":
    import ray_nodes

    ray_nodes.main(sys.argv[1], sys.argv[2])  # by its name, so that other processes find the class of the samples

"""A run on two Ray nodes survives kill -9 of an actor and of the driver."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import relprop

pytest.importorskip("zarr")
pytest.importorskip("ray.data", reason="Ray is not installed: pip install 'relprop[ray]'")

import ray_nodes
from killed_runs import shards


@pytest.fixture
def nodes() -> Iterator[ray_nodes.Namespaces]:
    with ExitStack() as stack:
        try:
            both = stack.enter_context(ray_nodes.cluster())
        except OSError as error:  # no namespaces, or a machine so busy that Ray gives up
            pytest.skip(str(error))
        yield both


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # those of Ray itself
def test_actors_leave_what_another_run_has_at_hand_until_it_is_free(tmp_path: Path) -> None:
    import threading

    import ray

    from killed_runs import samples
    from relprop.data.leases import Leases

    settings: dict[str, Any] = {"batch_size": 4, "unit": 8, "progress": False}
    folder, x = tmp_path / "maps", samples()[:22]
    relprop.explain_dataset(x, "killed_runs:network", folder, units=[], **settings)
    released: list[float] = []
    with Leases(folder) as other:
        assert other.take("000001")

        def free() -> None:
            while not (folder / "units" / "000002.json").exists():
                time.sleep(0.05)
            time.sleep(2)
            released.append(time.time())
            other.release("000001")

        thread = threading.Thread(target=free)
        thread.start()
        try:
            run = relprop.explain_dataset(x, "killed_runs:network", folder, engine="ray", processes=2, **settings)
        finally:
            ray.shutdown()
        thread.join()
    assert run.store.record_path(1).stat().st_mtime >= released[0] and len(run.keys()) == 22
    whole = relprop.explain_dataset(x, "killed_runs:network", tmp_path / "whole", **settings)
    assert shards(folder) == shards(whole.folder) and not list(folder.glob("leases/*"))


@pytest.mark.slow
def test_a_signal_lets_actors_end_their_units(tmp_path: Path) -> None:
    from test_data_command import source, start

    maps = tmp_path / "maps"
    line = ("--model", "test_data_command:lazy", "--out", maps, "--batch-size", 1, "--unit", 4, "--processes", 2)
    process = start(source(tmp_path, 200), *line, "--engine", "ray")
    held: set[int] = set()
    while process.poll() is None and not (list(maps.glob("units/*.json")) and held):
        time.sleep(0.02)
        held = {int(path.name) for path in maps.glob("leases/[0-9]*")}
    process.send_signal(signal.SIGTERM)
    _, progress = process.communicate(timeout=100)
    assert process.returncode == 130 and "To continue: relprop run" in progress, progress
    run = relprop.open_run(maps)
    assert held <= run.store.done() and len(run.store.done()) < 50 and not run.verify()
    assert not list(maps.glob("leases/*"))


def until(what: Callable[[], object], process: subprocess.Popen[bytes]) -> None:
    """Waits until something holds, or the process ends."""
    end = time.monotonic() + 200
    while not what() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)


@pytest.mark.slow
def test_two_nodes_of_which_an_actor_and_the_driver_die(nodes: ray_nodes.Namespaces, tmp_path: Path) -> None:
    folder = tmp_path / "maps"
    script = Path(ray_nodes.__file__)

    def done() -> int:
        return len(list((folder / "units").glob("*.json")))

    def actors() -> list[int]:
        return [process for process, line in nodes.inside().items() if "ray::" in line and "MapWorker" in line]

    def start() -> subprocess.Popen[bytes]:
        return nodes.run(0, sys.executable, script, f"{ray_nodes.HEAD}:{ray_nodes.PORT}", folder)

    driver = start()
    until(lambda: done() >= 2, driver)
    assert len(actors()) == 2, driver.communicate(timeout=9)[0][-3000:] if driver.poll() is not None else actors()
    os.kill(actors()[0], signal.SIGKILL)
    before = done()
    until(lambda: done() >= before + 3, driver)
    line = f"{script} {ray_nodes.HEAD}"
    killed = next(process for process, said in nodes.inside().items() if line in said and "ip netns" not in said)
    os.kill(killed, signal.SIGKILL)
    driver.communicate(timeout=60)
    assert 5 <= done() < 15
    again = start()
    out, _ = again.communicate(timeout=300)
    assert again.returncode == 0, out.decode()[-3000:]
    run = relprop.open_run(folder)
    assert run.keys() == [str(n) for n in range(60)] and not run.verify() and set(run.table["status"]) == {1}
    whole = relprop.explain_dataset(
        ray_nodes.Slow(), "killed_runs:network", tmp_path / "whole", batch_size=2, unit=4, loaders=8, progress=False
    )
    assert shards(folder) == shards(whole.folder)

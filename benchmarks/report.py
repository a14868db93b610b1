"""The measurements as a table for people and as JSON for comparing runs."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

Rows = Mapping[str, Mapping[str, object]]
COLUMNS = ("", "seconds", "time ×", "range", "goal", "extra MB", "memory ×", "goal", "Σ\\|R\\| / \\|score\\|")
PACKAGES = ("relprop", "torch", "captum", "zennit", "autolrp")


def environment(device: str, threads: int) -> dict[str, object]:
    """What the figures depend on, besides the code."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version()} | {name: installed(name) for name in PACKAGES},
        "platform": platform.platform(),
        "processor": torch.cuda.get_device_name() if device != "cpu" else processor(),
        "device": device,
        "threads": threads,
    }


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # not there, or run from a checkout
        return getattr(sys.modules.get(package), "__version__", None)


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def table(rows: Rows) -> str:
    """A markdown table with one row per contestant; ratios are multiples of the plain gradient's."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---" + "|--:" * (len(COLUMNS) - 1) + "|"]
    for name, row in rows.items():
        lines.append("| " + " | ".join([name, *cells(row)]) + " |")
    return "\n".join(lines)


def cells(row: Mapping[str, object]) -> list[str]:
    if "error" in row:
        return [f"failed: {str(row['error'])[:80]}", *[""] * (len(COLUMNS) - 2)]
    low_high = row.get("time_range")
    extra = row.get("extra")
    return [
        number(row.get("seconds"), 3),
        number(row.get("time")),
        f"{low_high[0]:.2f} – {low_high[1]:.2f}" if isinstance(low_high, list) else "",
        goal(row.get("time"), row.get("goal_time")),
        number(extra / 1e6, 0) if isinstance(extra, int) else "",
        number(row.get("memory")),
        goal(row.get("memory"), row.get("goal_memory")),
        f"{magnitude:.2g}" if isinstance(magnitude := row.get("magnitude"), float) else "",
    ]


def number(value: object, digits: int = 2) -> str:
    return f"{value:.{digits}f}" if isinstance(value, (int, float)) else ""


def goal(value: object, most: object) -> str:
    """The goal, and whether it was met."""
    if not isinstance(value, float) or not isinstance(most, float):
        return ""
    return f"≤ {most:.2f} {'met' if value <= most else 'MISSED'}"

"""What was found, as a page of the documentation."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

PACKAGES = ("torch", "transformers", "timm", "torchvision")
COLUMNS = ("", "`auto`", "residual", "CP-LRP", "alone", "padding", "eager", "time ×")

ABOVE = """# Coverage

<!-- Written by `make coverage`. -->

Architectures built from small configurations with random weights, and explained as they come, without any option. No
line of relprop knows one of them by name.

{summary}

Each of them runs, with a forward pass that equals `model(x)` bit for bit, with finite relevance, and with nothing of
the model changed: no parameter, buffer, attribute, hook or flag. The columns:

- **`auto`**: the composite that was picked.
- **residual**: the largest part of a score that did not arrive, as a share of the largest score: what biases, positions,
  class tokens and, in AttnLRP, the softmax keep. It may exceed 1, because contributions have signs.
- **CP-LRP**: the same with attention as a constant (for a selective scan with its step size, B and C), in a copy whose
  biases, positions and class tokens are 0, so that nothing may keep a share. At most 1e-4, because some norms are
  computed in float32.
- **alone**: how far a sample's map moves when it is explained alone and not in a batch, as a share of the largest
  relevance; at most 1e-5.
- **padding**: the largest relevance of a token that the mask hides, exactly 0; blank where the model takes no ids, or
  reads what the mask hides itself.
- **eager**: how far the maps of the eager and the fused attention are apart, where a model has both; at most 1e-5.
- **time**: processor time of one explanation, over one forward pass and the plain gradient of the same score. Networks this small spend
  it in Python, a few microseconds for each operation: on networks of ordinary size see [benchmarks](benchmarks.md).

All but the time and the residual is measured in float64, where the model lets itself be converted.
"""


def page(rows: Iterable[Any]) -> str:
    rows = list(rows)
    good = [row for row in rows if not row.faults]
    bad = [row for row in rows if row.faults]
    libraries = {name: sum(row.library == name for row in good) for name in dict.fromkeys(r.library for r in rows)}
    summary = (
        f"**{len(good)} of {len(rows)}** pass: {', '.join(f'{n} of {name}' for name, n in libraries.items())}. "
        f"Measured with {', '.join(versions())}."
    )
    parts = [ABOVE.format(summary=summary)]
    for kind in dict.fromkeys(row.kind for row in good):
        parts.append(f"## {kind.capitalize()}\n")
        parts.append(table([row for row in good if row.kind == kind]))
    notes = {
        row.name: note
        for row in good
        for note in row.notes
        if note.startswith(("need not", "forward", "all relevance", "without its"))
    }
    parts.append("## Notes\n")
    parts += [f"- `{name}`: {note}." for name, note in notes.items()]
    parts.append("\n## What fails\n")
    parts += [f"- `{row.name}` ({row.library}): {'; '.join(row.faults)}" for row in bad] or ["Nothing."]
    return "\n".join(parts) + "\n"


def table(rows: list[Any]) -> str:
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---|---" + "|--:" * (len(COLUMNS) - 2) + "|"]
    for row in rows:
        cells = [f"`{row.name}`", f"`{row.composite}`", number(row.residual, "{:.2f}")]
        cells += [number(value, "{:.0e}") for value in (row.conserves, row.alone, row.padding, row.attention)]
        lines.append("| " + " | ".join([*cells, number(row.time, "{:.1f}")]) + " |")
    return "\n".join(lines) + "\n"


def number(value: float | None, form: str) -> str:
    if value is None:
        return ""
    return "0" if value == 0 else form.format(value)


def versions() -> list[str]:
    found = [f"Python {platform.python_version()}", f"torch {torch.__version__}"]
    for package in PACKAGES[1:]:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return found

"""What was found, as a page of the documentation."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from benchmarks.coverage.architectures import LIBRARIES

PACKAGES = ("torch", "transformers", "timm", "torchvision")
COLUMNS = ("", "`auto`", "residual", "CP-LRP", "alone", "padding", "eager", "time ×")

ABOVE = """# Coverage

<!-- Written by `make coverage`. -->

Architectures built from small configurations with random weights, and explained unchanged, without any option. No line
of relprop refers to one of them by name.

{summary}

Each of them runs. Its forward pass equals `model(x)` bit for bit, its relevance is finite, and nothing about the model
changes: no parameter, buffer, attribute, hook or flag. The columns:

- **`auto`**: the composite that was picked.
- **residual**: the largest part of a score that did not arrive, as a share of the largest score. Biases, positions,
  class tokens and, in AttnLRP, the softmax keep it. It may exceed 1, because contributions have signs.
- **CP-LRP**: the same with attention as a constant (for a selective scan, with its step size, B and C as constants), in
  a copy whose biases, positions and class tokens are 0, so that nothing may keep a share. At most 1e-4, because some
  norms are computed in float32.
- **alone**: how far a sample's map changes when it is explained alone and not in a batch, as a share of the largest
  relevance; at most 1e-5.
- **padding**: the largest relevance of a token that the mask hides, exactly 0. Blank if the model takes no ids, or
  itself reads tokens that the mask hides.
- **eager**: how far the maps of the eager and the fused attention are apart, for models with both; at most 1e-5.
- **time**: processor time of one explanation, relative to one forward pass and the plain gradient of the same score.
  Networks this small spend it in Python, a few microseconds for each operation. For networks of ordinary size see
  [benchmarks](benchmarks.md).

All columns but the time and the residual are measured in float64, if the model can be converted.
"""


PACKAGES_BELOW = """<!-- Below: written by `python -m benchmarks.coverage --packages`. -->

## Packages for one kind of data

The same for models outside these libraries, run by the code of their own packages: which pass, which are refused and
why, and which were not installed. The packages are listed in `benchmarks/coverage/packages/requirements.txt`; the code
that builds each model is in the same folder.

{summary}

**ledger** is how far the sum of the ledger (`ledger=True`) is from the residual, with the composite `zero`, as a share
of the largest score; at most 1e-4. **CP-LRP** is blank if the model need not conserve, for the reason given in the
notes.
"""


def page(rows: Iterable[Any], before: str = "") -> str:
    """The page; a part of which nothing was examined stays as it is in the page before."""
    rows = list(rows)
    first, mark, second = before.partition(PACKAGES_BELOW.partition("\n")[0])
    libraries = [row for row in rows if row.library in LIBRARIES]
    packages = [row for row in rows if row.library not in LIBRARIES]
    if libraries:
        first = of_libraries(libraries) + "\n"
    return first + (of_packages(packages) if packages else mark + second)


def renewed(before: str, rows: Iterable[Any], order: Sequence[tuple[str, str]]) -> str:
    """The page with the lines of some rows of the libraries replaced; all others stay as they are.

    Args:
        before: the page.
        rows: what was found.
        order: library and name of every architecture of the catalogue. Of lines with one name, the first is that of the
            library that comes first.

    Raises:
        ValueError: a row has faults, or the page has no line for it.
    """
    lines = before.split("\n")
    for row in rows:
        same = [library for library, name in order if name == row.name]
        found = [n for n, line in enumerate(lines) if line.startswith(f"| `{row.name}` | `")]
        if row.faults or len(found) != len(same):
            raise ValueError(
                f"write the whole page: {row.name} of {row.library} {'fails' if row.faults else 'is not in it'}"
            )
        lines[found[same.index(row.library)]] = table([row]).split("\n")[2]
    return "\n".join(lines)


def renewed_packages(before: str, rows: Iterable[Any]) -> str:
    """The page with the lines and notes of some rows of packages replaced; all others stay as they are.

    What is not installed here stays as it was measured elsewhere.

    Raises:
        ValueError: a row has faults, or the page has no line for it.
    """
    lines = before.split("\n")
    for row in [row for row in rows if not row.absent]:
        found = [n for n, line in enumerate(lines) if line.startswith(f"| `{row.name}` | {row.library} | ")]
        if row.faults or len(found) != 1:
            raise ValueError(
                f"write the whole part: {row.name} of {row.library} {'fails' if row.faults else 'is not in it'}"
            )
        lines[found[0]] = line_of_package(row)
        start, stop = lines.index(NOTES_ON_PACKAGES) + 2, lines.index(REFUSED) - 1
        own = [n for n in range(start, stop) if lines[n].startswith(f"- `{row.name}` ({row.library}): ")]
        kept = [lines[n] for n in range(start, stop) if n not in own]
        place = own[0] - start if own else len(kept)
        lines[start:stop] = [*kept[:place], *notes_of([row]), *kept[place:]]
    return "\n".join(lines)


def line_of_package(row: Any) -> str:
    cells = [f"`{row.name}`", row.library, f"`{row.composite}`", number(row.residual, "{:.2f}")]
    cells += [number(value, "{:.0e}") for value in (row.conserves, row.alone, row.books)]
    return "| " + " | ".join([*cells, number(row.time, "{:.1f}")]) + " |"


def notes_of(rows: Iterable[Any]) -> list[str]:
    """A line for each note on rows of packages."""
    return [f"- `{row.name}` ({row.library}): {note}." for row in rows for note in row.notes if note.startswith(NOTED)]


def of_packages(rows: list[Any]) -> str:
    there = [row for row in rows if not row.absent]
    good = [row for row in there if not row.faults]
    names = ", ".join(
        f"{name} {count}"
        for name, count in sorted(Counter(row.library for row in good).items(), key=lambda n: n[0].lower())
    )
    summary = f"**{len(good)} of {len(there)}** pass: {names}. Measured with torch {torch.__version__}."
    parts = [PACKAGES_BELOW.format(summary=summary)]
    for kind in dict.fromkeys(row.kind for row in good):
        parts.append(f"### {kind.capitalize()}\n")
        lines = [
            "|  | package | `auto` | residual | CP-LRP | alone | ledger | time × |",
            "|---|---|---|--:|--:|--:|--:|--:|",
        ]
        lines += [line_of_package(row) for row in good if row.kind == kind]
        parts.append("\n".join(lines) + "\n")
    parts += [f"{NOTES_ON_PACKAGES}\n", *notes_of(good)]
    parts.append(f"\n{REFUSED}\n")
    parts += [f"- `{row.name}` ({row.library}): {'; '.join(row.faults)}" for row in there if row.faults] or ["Nothing."]
    if absent := sorted({f"`{row.name}` ({row.library})" for row in rows if row.absent}):
        parts.append("\n### Not installed\n")
        parts.append(", ".join(absent) + ".")
    return "\n".join(parts) + "\n"


NOTES_ON_PACKAGES, REFUSED = "### Notes on these", "### What is refused"
NOTED = ("need not", "forward", "all relevance", "without its", "its ")


def of_libraries(rows: list[Any]) -> str:
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
    notes = {row.name: note for row in good for note in row.notes if note.startswith(NOTED)}
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

"""`python -m benchmarks.coverage`: examines every architecture of the catalogue, writes docs/coverage.md.

python -m benchmarks.coverage --only llama swin        # those whose name holds one of these words
python -m benchmarks.coverage --packages               # graphs, tables, series, ...: the second part of the page
python -m benchmarks.coverage --json found.json --page docs/coverage.md
python -m benchmarks.coverage --only resnet --page docs/coverage.md    # the other lines of the page stay as they are
python -m benchmarks.coverage --packages --only GCN --page docs/coverage.md    # likewise
"""

from __future__ import annotations

import argparse
import gc
import json
from dataclasses import fields
from pathlib import Path

import torch

from benchmarks.coverage.check import Row, examine


def main() -> None:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__, formatter_class=form)
    parser.add_argument("--only", nargs="+", metavar="WORD", help="names that hold one of these words")
    parser.add_argument("--library", nargs="+", help="transformers, timm, torchvision, or a package")
    parser.add_argument("--packages", action="store_true", help="only packages for one kind of data; see packages/")
    parser.add_argument("--seconds", type=int, default=120, help="the most one architecture may take (%(default)s)")
    parser.add_argument("--json", type=Path, help="a record, a line for each; what it holds is not examined again")
    parser.add_argument("--page", type=Path, help="write the table here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    from benchmarks.coverage.catalogue import everything
    from benchmarks.coverage.table import page, renewed, renewed_packages

    rows = recorded(options.json)
    for one in everything(options.packages):
        if options.only and not any(word.lower() in one.name.lower() for word in options.only):
            continue
        if options.library and one.library not in options.library:
            continue
        if (one.library, one.name) in rows:
            continue
        row = examine(one, options.seconds)
        gc.collect()
        rows[one.library, one.name] = row
        numbers = " ".join(
            f"{key}={value:.1e}"
            for key in ("residual", "conserves", "alone", "padding", "attention", "books", "time")
            if (value := getattr(row, key)) is not None
        )
        verdict = "none" if row.absent else "FAIL" if row.faults else "ok"
        if row.absent:
            row.notes.append(f"not installed: {row.absent}")
        print(
            f"{verdict:4} {row.library[:5]:5} {row.name:40} {row.composite:14} {numbers} {'; '.join(row.faults + row.notes)}",
            flush=True,
        )
        if options.json is not None:
            with options.json.open("a") as file:
                file.write(json.dumps(row.asdict()) + "\n")
    order = [(one.library, one.name) for one in everything(options.packages)]
    found = [rows[key] for key in order if key in rows]
    faulty, absent = (
        sum(bool(list_) for list_ in some) for some in ([r.faults for r in found], [r.absent for r in found])
    )
    print(f"{len(found)} architectures, {faulty} with faults, {absent} not installed")
    if options.page is not None:
        before = options.page.read_text(encoding="utf-8") if options.page.exists() else ""
        if not before or not (options.only or options.library):
            written = page(found, before)
        else:
            written = renewed_packages(before, found) if options.packages else renewed(before, found, order)
        options.page.write_text(written, encoding="utf-8")


def recorded(file: Path | None) -> dict[tuple[str, str], Row]:
    """What an earlier run found, the last word on each."""
    if file is None or not file.exists():
        return {}
    names = {field.name for field in fields(Row)}
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return {(line["library"], line["name"]): Row(**{k: v for k, v in line.items() if k in names}) for line in lines}


if __name__ == "__main__":
    main()

"""`python -m benchmarks.coverage`: examines every architecture of the catalogue, writes docs/coverage.md.

    python -m benchmarks.coverage --only llama swin        # those whose name holds one of these words
    python -m benchmarks.coverage --json found.json --page docs/coverage.md
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from pathlib import Path

import torch

from benchmarks.coverage.check import examine


def main() -> None:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__, formatter_class=form)
    parser.add_argument("--only", nargs="+", metavar="WORD", help="names that hold one of these words")
    parser.add_argument("--library", nargs="+", help="transformers, timm, torchvision")
    parser.add_argument("--seconds", type=int, default=120, help="the most one architecture may take (%(default)s)")
    parser.add_argument("--json", type=Path, help="write what was found here too, a line each")
    parser.add_argument("--page", type=Path, help="write the table here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    from benchmarks.coverage.catalogue import everything
    from benchmarks.coverage.table import page

    rows = []
    for one in everything():
        if options.only and not any(word.lower() in one.name.lower() for word in options.only):
            continue
        if options.library and one.library not in options.library:
            continue
        row = examine(one, options.seconds)
        gc.collect()
        rows.append(row)
        numbers = " ".join(
            f"{key}={value:.1e}"
            for key in ("residual", "conserves", "alone", "padding", "attention", "time")
            if (value := getattr(row, key)) is not None
        )
        verdict = "FAIL" if row.faults else "ok"
        print(f"{verdict:4} {row.library[:5]:5} {row.name:40} {row.composite:14} {numbers} {'; '.join(row.faults + row.notes)}", flush=True)
        if options.json is not None:
            with options.json.open("a") as file:
                file.write(json.dumps(row.asdict()) + "\n")
    failed = [row for row in rows if row.faults]
    print(f"{len(rows)} architectures, {len(failed)} with faults")
    if options.page is not None:
        options.page.write_text(page(rows))
    sys.exit(0)


if __name__ == "__main__":
    main()

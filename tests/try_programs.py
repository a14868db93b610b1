"""Tries many random programs: `make programs ARGS=10000`, or `python tests/try_programs.py 10000`.

    python tests/try_programs.py 10000              # seeds 0 to 9999, every property
    python tests/try_programs.py 500 --first 10000  # seeds from 10000 on
    python tests/try_programs.py --seed 42          # one: its source, its fault if it has one, and the smallest that has it
    python tests/try_programs.py 500 --blocks       # every other operation is a block: of graphs, gates, attention, norms
    python tests/try_programs.py 500 --only books_balance

Each fault is printed as the smallest program that has it, ready to be run. The exit status is 1 where there is one.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
import warnings

import torch

from program_properties import PROPERTIES, fault
from programs import HEADER, Program, draw, draw_blocks


def main() -> int:
    options = arguments()
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    seeds = [options.seed] if options.seed is not None else range(options.first, options.first + options.count)
    began, faults, operations = time.monotonic(), 0, 0
    for tried, seed in enumerate(seeds, 1):
        if tried % 50 in (1, 10):  # what is imported by then need not be looked through for each program
            gc.collect()
            gc.freeze()
        program = draw_blocks(seed) if options.blocks else draw(seed)
        operations += len(program.nodes)
        if options.seed is not None:
            print(program.source())
        for name in options.only or PROPERTIES:
            if (found := fault(program, (name,))) is not None:
                faults += 1
                report(program, name, found[1])
        if tried % 100 == 0:
            print(f"{tried} programs, {faults} faults, {time.monotonic() - began:.0f} s", flush=True)
    print(f"{len(seeds)} programs of {operations} operations, {faults} faults, {time.monotonic() - began:.0f} s")
    return int(faults > 0)


def report(program: Program, name: str, error: BaseException) -> None:
    """Prints the smallest program found with the same fault."""
    print(f"seed {program.seed}: {name}: {error!r}")

    def fails(other: Program) -> bool:
        try:
            with torch.no_grad():
                other.build()(other.inputs())
        except Exception:  # it shrank to no program
            return False
        found = fault(other, (name,))
        return found is not None and type(found[1]) is type(error)

    small = program.shrunk(fails)
    found = fault(small, (name,))
    if found is None:
        print("it does not come again: it hangs on what memory held\n", flush=True)
        return
    print(f"the smallest, on inputs of shape {tuple(small.inputs().shape)}: {found[1]!r}")
    print(small.source().removeprefix(HEADER).strip(), end="\n\n", flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int, nargs="?", default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--blocks", action="store_true", help="of blocks of networks as well: graphs, gates, attention")
    parser.add_argument("--only", action="append", choices=list(PROPERTIES))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

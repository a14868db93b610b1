"""`python -m benchmarks.generation`: the matrix of a generation against one call per token.

A random decoder of Llama's shape (8 layers, width 512) goes on for 32 tokens. Both contestants explain the same
tokens by the same rules; what they find is compared before they are timed, in turns, and the ratio is the median over
the rounds. Needs transformers.
"""

from __future__ import annotations

import argparse
import json
import time
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

import relprop
from benchmarks import report
from relprop.text.generation import matrix

VOCABULARY = 8000


def decoder() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=512, intermediate_size=1408, num_hidden_layers=8, num_attention_heads=8,
        num_key_value_heads=8, max_position_embeddings=2048,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval().requires_grad_(False)


def single_calls(model: nn.Module, ids: Tensor, new: list[int], composite: str) -> Tensor:
    """What a loop over `relprop.attribute` gives: each call reads what was written before its token."""
    rows = torch.zeros(len(new), ids.shape[1] + len(new))
    for g, token in enumerate(new):
        read = torch.cat([ids, torch.tensor([new[:g]], dtype=ids.dtype)], 1)
        options = {"use_cache": False, "logits_to_keep": 1}
        found = relprop.attribute(model, {"input_ids": read}, (-1, token), composite=composite, forward_kwargs=options)
        rows[g, : read.shape[1]] = found.values["input_ids"][0]
    return rows


def at_once(model: nn.Module, ids: Tensor, new: list[int], composite: str) -> Tensor:
    return matrix(model, ids, new, composite, {})[0]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.generation", description=__doc__)
    parser.add_argument(
        "--prompt", nargs="+", type=int, default=[16, 64, 128], help="tokens of the prompt (%(default)s)"
    )
    parser.add_argument("--new", type=int, default=32, help="generated tokens (%(default)s)")
    parser.add_argument("--composite", default="attnlrp")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(json.dumps(report.environment("cpu", options.threads)))
    model = decoder()
    print("| tokens of the prompt | single calls, s | matrix, s | ratio | range |\n|--:|--:|--:|--:|--:|")
    for count in options.prompt:
        ids = torch.randint(VOCABULARY, (1, count), generator=torch.Generator().manual_seed(count))
        new = torch.randint(VOCABULARY, (options.new,), generator=torch.Generator().manual_seed(1)).tolist()
        given = (model, ids, new, options.composite)
        torch.testing.assert_close(at_once(*given), single_calls(*given), rtol=1e-3, atol=1e-5)
        rounds = [(seconds(single_calls, given), seconds(at_once, given)) for _ in range(options.rounds)]
        ratios = [matrix / single for single, matrix in rounds]
        single, together = (median(column) for column in zip(*rounds, strict=True))
        print(
            f"| {count} | {single:.2f} | {together:.2f} | {median(ratios):.2f} | {min(ratios):.2f} – {max(ratios):.2f} |"
        )


def seconds(run: Any, given: tuple) -> float:
    start = time.perf_counter()
    run(*given)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()

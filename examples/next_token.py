"""What does a language model's next token draw on?  `python examples/next_token.py [FOLDER]`.

SmolLM2-135M goes on with "The capital of France is". FOLDER, where given, is a copy of the model in transformers' own
format, which loads faster than the GGUF.
"""

from __future__ import annotations

import sys

import networks
import relprop

PROMPT = "The capital of France is"
CHAT = [{"role": "user", "content": "What is the capital of Italy?"}]


def main(folder: str | None = None) -> None:
    """Explains the next token, a contrast, an answer, and where inside the network it was made."""
    tokenizer, model = load(folder) if folder else networks.smollm2()
    print(relprop.explain_text(model, tokenizer, PROMPT))
    print("\nThe three likeliest:", relprop.explain_text(model, tokenizer, PROMPT, top=3)[0].predictions[:3])

    print("\nWhat speaks for Paris rather than for Rome? What all capitals have in common cancels.")
    print(relprop.explain_text(model, tokenizer, PROMPT, relprop.Contrast("Paris", "Rome")))

    print("\nA text behind the first token: without one, the first word is where attention rests.")
    print(relprop.explain_text(model, tokenizer, "Geography. " + PROMPT, relprop.Contrast("Paris", "Rome")))

    print("\nAttention as a constant, and positions as sinks:")
    print(relprop.explain_text(model, tokenizer, PROMPT, composite="cp_lrp"))
    print(relprop.explain_text(model, tokenizer, PROMPT, positions=True))

    print("\nWhere was it made? Relevance of each word where it enters each block, and the strongest heads:")
    inside = relprop.explain_text(model, tokenizer, PROMPT, parts=True)
    for number in range(0, len(inside.blocks), 5):
        row = "".join(f"{value:+8.2f}" for value in inside.blocks[number])
        print(f"  block {number:2d} {row}")
    heads = inside.heads.sum(-1)
    for at in heads.flatten().argsort(descending=True)[:3].tolist():
        block, head = divmod(at, heads.shape[1])
        print(f"  block {block}, head {head}: {heads[block, head]:+.2f}")

    print()
    print(relprop.explain_generation(model, tokenizer, PROMPT, max_new_tokens=12))
    answer = relprop.explain_generation(model, tokenizer, CHAT, max_new_tokens=12)
    print(f"\n{answer}")
    drawn = zip(answer.prompt, answer.of_prompt().tolist(), answer.special, strict=False)
    words = sorted((pair for pair in drawn if not pair[2]), key=lambda pair: -pair[1])[:6]
    print("  of the prompt:", ", ".join(f"{piece.strip()!r} {value:+.2f}" for piece, value, _ in words))


def load(folder: str) -> tuple:
    """A model in transformers' own format."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder).float().eval().requires_grad_(False)
    return AutoTokenizer.from_pretrained(folder), model


if __name__ == "__main__":
    main(*sys.argv[1:])

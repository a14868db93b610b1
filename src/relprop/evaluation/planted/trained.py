"""Tasks that a copy of a model is trained on in seconds, on the user's own samples, with a truth that is planted."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from relprop.attribution.checks import arguments
from relprop.attribution.targets import select_output
from relprop.evaluation.generators import seed_of, seeded
from relprop.evaluation.memory import BatchSize
from relprop.evaluation.planted.built import PlantedTask
from relprop.evaluation.subject import Subject

OBEYED = 0.95
"""The share of held-out samples that a copy must get right before its maps are judged."""
_COPIES = 96
_STEPS = 60


def planted(subject: Subject, seed: int) -> PlantedTask:
    """A patch in pictures, or a trigger word in texts: the copy's new head tells whether it is there."""
    name = "a planted word" if not subject.main.is_floating_point() else "a planted patch"
    nothing = torch.zeros(0)
    if not isinstance(subject.model, nn.Module) or (head := last_linear(subject.model)) is None:
        return PlantedTask(name, None, None, 0, nothing, None, "the model has no last linear layer to train anew")
    if subject.main.ndim not in (2, 4) or (subject.main.is_floating_point() and subject.main.ndim != 4):
        return PlantedTask(name, None, None, 0, nothing, None, "it is for pictures and texts")
    chance = torch.Generator().manual_seed(seed_of(seed, name))
    # Each sample comes with and without what is planted, so that nothing else tells the two classes apart.
    some, order = min(len(subject), _COPIES // 2), torch.randperm(_COPIES, generator=chance)
    rows, labels = order % some, order // some % 2
    main, truth = _plant(subject, rows, chance)
    main = torch.where(
        labels.reshape(-1, *[1] * (main.ndim - 1)).to(main.device) > 0, main, subject.main[rows.to(main.device)]
    )
    with seeded(seed_of(seed, f"training {name}")):
        model, right = _train(subject, head, main, rows, labels)
    said = f"the copy gets {right:.0%} of held-out samples right, which is less than {OBEYED:.0%}"
    kept = (labels == 1).nonzero()[:16, 0]
    inputs = subject.rows(rows[kept].to(main.device), main[kept.to(main.device)])
    units: Any = "tokens" if not main.is_floating_point() else ("patches", _side(main))
    twins = subject.rows(rows[kept].to(main.device))
    return PlantedTask(
        name, model, inputs, 1, truth[kept].to(main.device), units, "" if right >= OBEYED else said, twins
    )


def side_by_side(subject: Subject, seed: int) -> PlantedTask:
    """Two of the user's pictures side by side: relevance of a class belongs in its own half."""
    name, nothing = "two objects side by side", torch.zeros(0)
    if subject.main.ndim != 4:
        return PlantedTask(name, None, None, 0, nothing, None, "it is for pictures")
    device = subject.main.device
    outputs = torch.cat(
        list(
            BatchSize(8).batches(
                len(subject), lambda a, b: subject.output(subject.rows(torch.arange(a, b, device=device)))
            )
        )
    )
    if outputs.ndim != 2 or outputs.shape[1] < 2:
        return PlantedTask(name, None, None, 0, nothing, None, "the model has no classes")
    classes = outputs.argmax(1).tolist()
    wide = subject.main.shape[3]
    half = F.interpolate(subject.main, size=(subject.main.shape[2], wide // 2), mode="area")
    pairs = [(a, b) for a in range(len(classes)) for b in range(len(classes)) if classes[a] != classes[b]][:64]
    found, targets = [], []
    for a, b in pairs:
        both = torch.cat([half[a : a + 1], half[b : b + 1]], 3)
        both = F.pad(both, (0, wide - both.shape[3]))
        top = subject.output(both)[0].topk(2).indices.tolist() if isinstance(subject.inputs, Tensor) else []
        if classes[a] in top and classes[b] in top:  # the model sees both
            found.append(both)
            targets.append(classes[a])
    if len(found) < 4:
        why = f"the model sees both objects in {len(found)} of {len(pairs)} pairs, which is fewer than 4"
        return PlantedTask(name, None, None, 0, nothing, None, why)
    truth = torch.zeros(len(found[:16]), *subject.main.shape[2:], dtype=torch.bool, device=device)
    truth[..., : wide // 2] = True
    return PlantedTask(
        name, subject.model, torch.cat(found[:16]), targets[:16], truth, ("patches", _side(subject.main))
    )


def last_linear(model: nn.Module) -> str | None:
    """The last linear layer, by the order in which the model names its modules."""
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and name]
    return names[-1] if names else None


def _side(main: Tensor) -> int:
    return max(1, round(max(main.shape[2:]) / 7))


def _plant(subject: Subject, rows: Tensor, chance: torch.Generator) -> tuple[Tensor, Tensor]:
    """Samples with a patch or a word in a random place of the grid, and where it is."""
    main = subject.main[rows.to(subject.main.device)].clone()
    truth = torch.zeros(len(main), *main.shape[-2:] if main.ndim == 4 else main.shape[1:], dtype=torch.bool)
    if main.ndim == 4:
        side = _side(main)
        low, high = float(subject.main.min()), float(subject.main.max())
        board = (torch.arange(side)[:, None] // max(1, side // 4) + torch.arange(side) // max(1, side // 4)) % 2
        pattern = (low + (high - low) * board).to(main)
        for n in range(len(main)):
            y, x = (int(torch.randint(max(1, size // side), (1,), generator=chance)) * side for size in main.shape[2:])
            spot = main[n, :, y : y + side, x : x + side]
            spot.copy_(pattern[: spot.shape[1], : spot.shape[2]].expand_as(spot))
            truth[n, y : y + side, x : x + side] = True
        return main, truth
    mask = subject.inputs.get("attention_mask") if isinstance(subject.inputs, dict) else None
    trigger = int(subject.main.max())
    for n, row in enumerate(rows.tolist()):
        length = int(mask[row].sum()) if mask is not None else main.shape[1]
        at = 1 + int(torch.randint(max(1, length - 2), (1,), generator=chance))
        main[n, at], truth[n, at] = trigger, True
    return main, truth


def _train(subject: Subject, head: str, main: Tensor, rows: Tensor, labels: Tensor) -> tuple[nn.Module, float]:
    """A copy with a new head of two classes: the head alone is trained first, then, if need be, all of the copy."""
    model = copy.deepcopy(subject.model)
    old = model.get_submodule(head)
    assert isinstance(old, nn.Linear)
    new = nn.Linear(old.in_features, 2).to(old.weight)
    parent, _, name = head.rpartition(".")
    setattr(model.get_submodule(parent), name, new)
    device, cut = main.device, 2 * len(main) // 3
    labels = labels.to(device)
    other = Subject(model, subject.inputs, subject.path, None, "logit", subject.select, None, subject.kwargs)

    def outputs(start: int, stop: int) -> Tensor:
        found = other.output(other.rows(rows[start:stop].to(device), main[start:stop]))
        return found[:, -1] if found.ndim == 3 else found

    features: list[Tensor] = []
    handle = new.register_forward_hook(lambda module, args, output: features.append(args[0].detach()))
    try:
        whole = torch.cat(list(BatchSize(16).batches(len(main), outputs)))
    finally:
        handle.remove()
    seen = torch.cat(features)
    if seen.shape[0] == len(main) and seen.ndim == 2:
        _fit(new, seen[:cut], labels[:cut])
        whole = torch.cat(list(BatchSize(16).batches(len(main), outputs)))
    right = float((whole[cut:].argmax(1) == labels[cut:]).double().mean())
    if right < OBEYED:
        _fine_tune(model, other, main[:cut], rows[:cut].to(device), labels[:cut])
        whole = torch.cat(list(BatchSize(16).batches(len(main), outputs)))
        right = float((whole[cut:].argmax(1) == labels[cut:]).double().mean())
    with torch.no_grad():  # the decision in one logit, for methods that explain one: less what both classes share
        for weight in (new.weight, new.bias):
            weight[1] -= weight[0]
            weight[0] = 0.0
    return model.eval(), right


def _fit(head: nn.Linear, features: Tensor, labels: Tensor) -> None:
    """Logistic regression on the features, with a small penalty."""
    middle, spread = features.mean(0), features.std(0) + 1e-6
    scaled = ((features - middle) / spread).double()
    weight = torch.zeros(2, scaled.shape[1], dtype=torch.float64, device=features.device, requires_grad=True)
    bias = torch.zeros(2, dtype=torch.float64, device=features.device, requires_grad=True)
    search = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Any:
        search.zero_grad()
        found = F.cross_entropy(scaled @ weight.T + bias, labels) + 1e-3 * weight.square().sum()
        found.backward()
        return found

    with torch.enable_grad():
        search.step(loss)
    with torch.no_grad():
        head.weight.copy_(weight / spread)
        head.bias.copy_(bias - (weight * (middle / spread)).sum(1))


def _fine_tune(model: nn.Module, subject: Subject, main: Tensor, rows: Tensor, labels: Tensor) -> None:
    """All weights, some steps of Adam; norms keep their statistics."""
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    search = torch.optim.Adam(model.parameters(), lr=1e-3)
    with torch.enable_grad():
        for _ in range(_STEPS):
            some = torch.randperm(len(main))[:16].to(main.device)
            args, kwargs = arguments(subject.rows(rows[some], main[some]), (), subject.kwargs)
            output = select_output(model(*args, **kwargs), subject.select)
            output = output[:, -1] if output.ndim == 3 else output
            search.zero_grad()
            F.cross_entropy(output, labels[some]).backward()
            search.step()
    model.zero_grad()

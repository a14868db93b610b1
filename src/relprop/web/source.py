"""The code that made an answer. It runs as it stands, beside the picture that it names."""

from __future__ import annotations

import re
from collections.abc import Sequence

from relprop.web.page_subject import MapColumn, PageSubject
from relprop.web.settings import PageSettings

OWN = "# model: the network that this page was made for, in eval mode; loaded: the same with its preprocessing\n"


def file_name(name: str, ending: str = "png") -> str:
    """A name for a file: letters, digits and hyphens of a name that may come from anyone."""
    stem = re.sub(r"[^A-Za-z0-9]+", "-", name.rpartition(".")[0] or name).strip("-")[:60]
    return f"{stem or 'picture'}.{ending}"


def of_pictures(
    subject: PageSubject,
    names: Sequence[str],
    settings: PageSettings,
    columns: Sequence[MapColumn],
    resolved: PageSettings,
) -> str:
    """The code that explains pictures.

    Args:
        subject: the network.
        names: the names of the pictures.
        settings: how it is drawn.
        columns: the rules of each column.
        resolved: what was explained.
    """
    files = [file_name(name) for name in names]
    lines = ["import relprop", "from relprop.loading import models", "from relprop.zoo.images import load_image", ""]
    lines += model_lines(subject)
    if len(files) == 1:
        lines += [f'picture = load_image("{files[0]}")', "inputs = loaded.tensor(picture)"]
        seen = "loaded.seen(picture)"
    else:
        listed = ", ".join(f'"{file}"' for file in files)
        lines += [f"pictures = [load_image(file) for file in [{listed}]]"]
        lines += ["inputs = torch.cat([loaded.tensor(picture) for picture in pictures])"]
        lines.insert(0, "import torch\n")
        seen = "[loaded.seen(picture) for picture in pictures]"
    if any(column.bounded for column in columns):
        lines.append("low, high = loaded.bounds()")
    lines += ["", *compared_lines(resolved, columns)]
    options = f"pictures={seen}, percentile={settings.percentile:g}, smooth={settings.smooth}"
    lines += [f'maps.save("maps.png", {options})', "print(maps)"]
    return "\n".join(lines) + "\n"


def compared_lines(settings: PageSettings, columns: Sequence[MapColumn]) -> list[str]:
    """The lines that explain `inputs`, as `maps`."""
    target, against = settings.target, settings.against
    before, wanted = [], "None" if target is None else f"[{target}]"
    if against is not None and target is None:
        before = ["likeliest = loaded.model(inputs).argmax(1).tolist()"]
        wanted = f"[likeliest, {against}, relprop.Contrast(likeliest, {against})]"
    elif against is not None:
        wanted = f"[{target}, {against}, relprop.Contrast({target}, {against})]"
    rules = ", ".join(f'"{column.name}": {column.source}' for column in columns)
    return [
        *before, "maps = relprop.compare(", "    loaded.model,", "    inputs,", f"    targets={wanted},",
        f"    composites={{{rules}}},", "    labels=loaded.labels,", ")",
    ]  # fmt: skip


def model_lines(subject: PageSubject) -> list[str]:
    """The lines that load the network, or say which one it is."""
    if subject.spec is None:
        return [OWN.rstrip(), "loaded = relprop.web.page.subject_of(model).loaded"]
    return [f"loaded = models.load({subject.spec!r})"]

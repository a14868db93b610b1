"""The maps, in the order of the page: each function draws one and says what is seen."""

from __future__ import annotations

from importlib import import_module

from gallery.catalogue import MAPS, Map

CHAPTERS = (
    "photographs", "rules", "composites", "scales", "layers", "digits", "patches", "series", "tables", "sound", "volumes", "words",
    "classes", "tokens", "concepts",
)  # fmt: skip
for chapter in CHAPTERS:  # importing one adds its maps
    import_module(f"gallery.maps.{chapter}")
# Some files use the networks of others, whose maps were added before theirs.
MAPS.sort(key=lambda shown: CHAPTERS.index(shown.draw.__module__.rpartition(".")[2]))

__all__ = ["CHAPTERS", "MAPS", "Map"]

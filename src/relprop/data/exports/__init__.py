"""A run in the formats of other programs. Each is written unit by unit, and continues where it was stopped."""

from relprop.data.exports.export import FORMATS, export

__all__ = ["FORMATS", "export"]

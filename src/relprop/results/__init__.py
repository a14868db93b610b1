"""Results: what is known after an explanation, and all that becomes of it: views, pictures, pages, files.

Each kind of result is one file with a class that answers `Result` (see `protocol`). Nothing else here, and nothing outside
of this package, asks which kind a result is of.
"""

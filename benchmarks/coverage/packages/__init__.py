"""Models of packages for one kind of data, by the package's own code. Each is imported when its model is built.

`python -m benchmarks.coverage --packages` examines them all; a package that is not installed is listed as that.
"""

from __future__ import annotations

from benchmarks.coverage.packages import flows, graphs, pictures, sequences, tables, time

ALL = [*graphs.ALL, *tables.ALL, *time.ALL, *flows.ALL, *pictures.ALL, *sequences.ALL]

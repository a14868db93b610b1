"""Which architectures relprop explains as they come, and how well: `python -m benchmarks.coverage`."""

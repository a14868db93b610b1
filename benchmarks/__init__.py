"""Time and memory that relevance takes, against those of one plain gradient: `python -m benchmarks`."""

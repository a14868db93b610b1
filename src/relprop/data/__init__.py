"""Runs over data sets: each sample explained once, in a folder that other programs read. Needs zarr.

    run = relprop.explain_dataset("photos/", "efficientnet_lite0", "maps/")
    run["cat.jpg"].map

`docs/data.md` is the specification of the folder.
"""

from relprop.data.dataset_run import DatasetRun, open_run
from relprop.data.datasets import explain_dataset, pending, work
from relprop.data.explained_sample import ExplainedSample

__all__ = ["DatasetRun", "ExplainedSample", "explain_dataset", "open_run", "pending", "work"]

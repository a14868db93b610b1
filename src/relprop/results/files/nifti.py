"""Relevance of a volume as NIfTI, in the space of the volume that it is about."""

from __future__ import annotations

import gzip
from typing import Any

import numpy as np

from relprop.errors import InputError
from relprop.optional import library
from relprop.results.protocol import Result


def nifti(result: Result, options: dict[str, Any]) -> bytes:
    """The relevance of one volume (1, C, X, Y, Z): channels, if there are several, are the fourth axis of the file."""
    if options:
        raise InputError(f"NIfTI holds numbers and takes no options of drawing; got {', '.join(sorted(options))}.")
    arrays = result.exported().arrays
    values = arrays.get("values")
    if values is None or values.ndim != 5 or len(values) != 1:
        shape = "several inputs" if values is None else f"the shape {tuple(values.shape)}"
        volumes = values is not None and values.ndim == 5
        fix = "Save one sample, R[0].save('map.nii.gz')." if volumes else "Save it as .npz, which holds any shape."
        raise InputError(f"NIfTI holds one volume, (1, C, X, Y, Z); this has {shape}. {fix}")
    nibabel = library("nibabel", "NIfTI needs nibabel", "volumes")
    voxels = values[0].float().cpu().numpy()
    voxels = voxels[0] if len(voxels) == 1 else np.moveaxis(voxels, 0, -1)
    affine = arrays["affine"].double().cpu().numpy() if "affine" in arrays else np.eye(4)
    content: bytes = nibabel.Nifti1Image(voxels, affine).to_bytes()
    return content


def nifti_compressed(result: Result, options: dict[str, Any]) -> bytes:
    """The same, compressed. It holds no time, so that equal results give equal files."""
    return gzip.compress(nifti(result, options), mtime=0)

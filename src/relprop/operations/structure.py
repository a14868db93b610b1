"""Operations that are linear in their live operands, or select among them: the native gradient is the exact rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from relprop.engine.call import Call
from relprop.engine.joining import as_parts, joined
from relprop.engine.moves import picked
from relprop.engine.notes import note_of
from relprop.engine.origins import chain, remembered
from relprop.engine.registry import native, register
from relprop.engine.roles import moves, selects
from relprop.engine.rows import by_entry
from relprop.engine.spelling import named
from relprop.engine.traits import FIRST, MIXES, MOVES, REDUCES, SAME, SCALES
from relprop.operations.folding import layer_before, note_scaled
from relprop.operations.sample_axes import (
    along_axis,
    in_order,
    indexed_off_first,
    joined_off_first,
    permuted_off_first,
    pooled,
)
from relprop.operations.stacks import elementwise_extreme, stacked
from relprop.torch_private.names import NESTED_TO_PADDED


def dropout(call: Call, input: Tensor, p: float = 0.5, training: bool = True, *rest: Any, **kwargs: Any) -> Tensor:
    if "train" in kwargs:
        training = kwargs["train"]
    if training and p > 0:
        raise call.training(call.entry.function.__name__)
    return call()


def grid_sample(call: Call, input: Tensor, grid: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Linear in the image; the grid is a constant."""
    if grid.requires_grad:
        call.cut("grid_sample", " as the places to look at", grid)
    return call(input, grid.detach(), *args, **kwargs)


def scaling(call: Call, *args: Any, **kwargs: Any) -> Any:
    """A fixed number times the operand: a step of an elementwise chain."""
    result = call()
    found = chain(call.function, args, kwargs, affine=True)
    if found is not None:
        remembered(call, result, found)
    layer, scale = layer_before(call.live[0]) if result.is_floating_point() else (None, None)
    if layer is not None and result is not call.live[0]:
        factor = call.function(torch.ones((), dtype=result.dtype, device=result.device))
        note_scaled(call.note(result), layer, scale, factor)
    return result


def joining(call: Call, tensors: Any, *args: Any, **kwargs: Any) -> Tensor:
    """Concatenates or stacks parts."""
    result: Tensor = call()
    if not result.requires_grad or not isinstance(tensors, (tuple, list)):
        return result
    if call.entry.function.__name__ in _ALONG_AN_AXIS:
        stacked(call, tensors, result, kwargs.get("dim", args[0] if args else 0))
    join = call.function

    def again(parts: Any) -> Tensor:
        found: Tensor = join(parts, *args, **kwargs)
        return found

    return joined(call.run, as_parts(tensors), result, again)


_ALONG_AN_AXIS = ("stack", "_stack", "cat", "concat", "concatenate")


def resized(
    call: Call,
    input: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    *args: Any,
    **kwargs: Any,
) -> Tensor:
    """The nearest mode moves entries; all other modes average several."""
    result: Tensor = call()
    if mode.startswith("nearest"):
        rest, options = call.args[1:], call.kwargs
        moves(call, lambda t: call.function(t, *rest, **options), input, result)
    return result


def cutting(position: int) -> Callable[..., Any]:
    """A handler for operations that cut a tensor along the axis at `position` into several views.

    Torch refuses a write into one of several views that an operation returned, if a gradient may be asked for. So if the
    model makes one, each part is a view of its own in the second run. That costs more: each has a node in the graph.
    """

    def cut(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Any:
        parts = call()
        if not call.copies_are_kept or input.is_nested:
            return parts
        return views_apart(input, parts, kwargs.get("dim", args[position - 1] if len(args) >= position else 0))

    return cut


def views_apart(input: Tensor, parts: Sequence[Tensor], dim: int) -> tuple[Tensor, ...]:
    """The parts of a tensor along an axis, each as a view of its own."""
    if not parts or parts[0].ndim < input.ndim:
        return tuple(input.select(dim, n) for n in range(len(parts)))
    starts = accumulate((part.shape[dim] for part in parts), initial=0)
    return tuple(input.narrow(dim, start, part.shape[dim]) for start, part in zip(starts, parts, strict=False))


def picking(position: int) -> Callable[..., Any]:
    """A handler for operations that pick entries along the axis at `position`, and return their indices."""

    def pick(call: Call, input: Tensor, *args: Any, **kwargs: Any) -> Any:
        return picked(call, input, call(), kwargs.get("dim", args[position - 1] if len(args) >= position else -1))

    return pick


def largest(call: Call, input: Tensor, dim: Any = (), keepdim: bool = False, **kwargs: Any) -> Tensor:
    """`amax` and `amin`: along one axis they pick as `max` and `min` do."""
    y = call()
    dims = dim if isinstance(dim, (tuple, list)) else (dim,)
    if len(dims) == 1 and note_of(input) is not None:
        most = call.entry.function.__name__ == "amax"
        find = torch.argmax if most else torch.argmin
        picked(call, input, (y, find(input.detach(), dims[0], keepdim=keepdim)), dims[0])
        elementwise_extreme(call, input, y, dims[0], most)
    else:
        selects(call, [input], y)
    return y


register(
    *named(
        "clone contiguous alias_copy detach_copy positive resolve_conj resolve_neg conj conj_physical real "
        "to type float double half bfloat16 cpu cuda ipu xpu mtia pin_memory to_dense _to_dense "
        "_autocast_to_full_precision _autocast_to_reduced_precision mkldnn to_mkldnn as_tensor asarray as_subclass _to_cpu "
        "_lazy_clone _cast_Double _cast_Float _cast_Half"
    ),
    family="structure",
    traits={SAME},
)
register(*named("type_as"), family="structure", traits={SAME, FIRST})
register(*named("expand_as"), family="structure", traits={MOVES, FIRST}, apart=by_entry)
register(*named("view_as reshape_as"), family="structure", traits={MOVES, FIRST}, apart=in_order)
for _names, _apart in (
    # shapes
    ("reshape view unflatten flatten ravel squeeze unsqueeze", in_order),
    ("permute", permuted_off_first),
    ("transpose swapaxes swapdims", along_axis(1, "dim0", "dim1", "axis0", "axis1", count=2)),
    ("expand repeat pad constant_pad_nd masked_fill masked_scatter fill zero", by_entry),
    # parts along an axis, and entries picked along one
    ("narrow select index_copy index_fill gather", along_axis(1, "dim", "axis")),
    ("tensor_split", along_axis(2, "dim", "axis", default=0)),
    ("take_along_dim", along_axis(2, "dim")),
    ("roll", along_axis(2, "dims", count=0)),
    ("flip", along_axis(1, "dims", count=0)),
    ("pixel_shuffle pixel_unshuffle", pooled(2)),
    ("_stack", joined_off_first),
):
    register(*named(_names), family="structure", traits={MOVES}, apart=_apart)
register(*named("unbind"), family="structure", handler=cutting(1), traits={MOVES}, apart=along_axis(1, "dim", "axis"))
register(
    *named("chunk split_with_sizes"),
    family="structure",
    handler=cutting(2),
    traits={MOVES},
    apart=along_axis(2, "dim", "axis", default=0),
)
register(*named("copy"), family="structure", traits={MOVES}, apart=by_entry, overwrites=lambda args: True)
register(
    *named("__setitem__"),
    family="structure",
    traits={MOVES},
    apart=indexed_off_first,
    overwrites=lambda args: args[1] is Ellipsis or args[1] == slice(None),
)
register(
    *named(
        # shapes and views
        "view_as_complex view_as_real t movedim moveaxis adjoint broadcast_to broadcast_tensors hsplit vsplit dsplit unsafe_chunk unsafe_split "
        "unsafe_split_with_sizes diagonal diag diag_embed diagflat as_strided unfold im2col atleast_1d "
        "atleast_2d atleast_3d expand_copy permute_copy select_copy slice_copy split_copy "
        "split_with_sizes_copy squeeze_copy t_copy transpose_copy unbind_copy unfold_copy unsqueeze_copy view_copy "
        "diagonal_copy as_strided_copy view_as_complex_copy view_as_real_copy narrow_copy "
        "_reshape_alias_copy _values_copy _indices_copy _sparse_broadcast_to_copy "
        "to_sparse coalesce values imag complex _coalesced "
        # joining, repeating, moving
        "block_diag cartesian_prod combinations "
        "meshgrid tile repeat_interleave fliplr flipud rot90 tril triu channel_shuffle native_channel_shuffle fftshift ifftshift __reversed__ "
        # picking and writing
        "index take masked_select select_scatter slice_scatter "
        "diagonal_scatter as_strided_scatter slice_inverse fill_diagonal resize resize_as sparse_mask "
        # private and alternative names
        "pad_sequence reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d "
        "replication_pad2d replication_pad3d _pad_circular _pad_enum flatten_dense_tensors unflatten_dense_tensors to_padded_tensor "
        "_nested_tensor_from_tensor_list _nested_view_from_buffer _nested_view_from_jagged _nested_from_padded "
        "_nested_from_padded_tensor _nested_get_values _nested_get_values_copy to_sparse_coo to_sparse_csr to_sparse_csc to_sparse_bsr to_sparse_bsc _to_sparse "
        "_to_sparse_csr _to_sparse_csc _to_sparse_bsr _to_sparse_bsc "
        "_unsafe_index _unsafe_index_put _unsafe_masked_index _chunk_cat spdiags"
    ),
    family="structure",
    traits={MOVES},
)
register(
    *named("index_put put"),
    family="structure",
    traits={MOVES},
    sums=lambda args, kwargs: bool(kwargs.get("accumulate", args[3] if len(args) > 3 else False)),
)
register(
    *named("neg negative __neg__ deg2rad rad2deg"),
    family="structure",
    handler=scaling,
    traits={SCALES},
)
# sums with nonnegative weights
register(
    *named("cumsum scatter_add index_add"),
    family="structure",
    traits={REDUCES, MIXES},
    apart=along_axis(1, "dim", "axis"),
)
register(
    *named(
        "sum_to_size fold col2im upsample_linear1d upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d "
        "_upsample_bilinear2d_aa "
        "_upsample_bicubic2d_aa _upsample_lanczos2d_aa"
    ),
    family="structure",
    traits={REDUCES, MIXES},
)
register(
    *named(
        "gradient trapezoid trapz cumulative_trapezoid affine_grid affine_grid_generator "
        "_neg_view _neg_view_copy _conj_physical _conj_copy cfloat cdouble chalf _unsafe_masked_index_put_accumulate "
        "fft ifft fft2 ifft2 fftn ifftn rfft irfft rfft2 irfft2 rfftn irfftn hfft ihfft hfft2 ihfft2 hfftn ihfftn stft istft "
        "_fft_r2c _fft_c2c _fft_c2r"
    ),
    family="structure",
    traits={MIXES},
)
register(*named("_conj"), family="structure", traits={MIXES}, apart=by_entry)
register(
    *named("aminmax msort quantile nanquantile copysign unique_consecutive"),
    family="selection",
)
register(*named("interpolate upsample"), family="structure", handler=resized, traits={MIXES, REDUCES}, apart=by_entry)
register(
    *named(
        "upsample_nearest1d upsample_nearest2d upsample_nearest3d "
        "_upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d"
    ),
    family="structure",
    traits={MOVES, REDUCES},
)
register(
    *named("cat concat concatenate stack"),
    family="structure",
    handler=joining,
    traits={MOVES},
    apart=joined_off_first,
)
register(*named("hstack vstack dstack column_stack row_stack"), family="structure", handler=joining, traits={MOVES})
register(*named("amax amin"), family="selection", handler=largest, apart=along_axis(1, "dim", "axis"))
register(*named("sort"), family="selection", handler=picking(1), apart=along_axis(1, "dim", default=-1))
register(*named("median"), family="selection", handler=picking(1), apart=along_axis(1, "dim", "axis"))
register(*named("nanmedian mode cummax cummin"), family="selection", handler=picking(1))
register(*named("topk"), family="selection", handler=picking(2), apart=along_axis(2, "dim", default=-1))
register(*named("kthvalue"), family="selection", handler=picking(2))
register(
    *named("dropout dropout1d dropout2d dropout3d alpha_dropout feature_dropout feature_alpha_dropout native_dropout"),
    family="structure",
    handler=dropout,
    on_constants=True,
    traits={SAME},
    in_place=native,
)
register(
    F.grid_sample,
    *named("grid_sampler grid_sampler_2d grid_sampler_3d"),
    family="structure",
    handler=grid_sample,
)
if (_padded := NESTED_TO_PADDED) is not None:
    register(_padded, family="structure", only=True)
register(torch.ops.aten.slice, torch.ops.aten.slice.Tensor, family="structure", only=True)
register(torch.sparse_coo_tensor, family="structure", traits={MOVES}, only=True)

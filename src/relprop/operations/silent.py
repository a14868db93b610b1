"""Operations that carry no relevance: comparisons, rounding, integers, queries, random numbers, fresh tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from relprop.engine import data
from relprop.engine.registry import SILENT, queries, register
from relprop.engine.sign_masks import compared, inverted
from relprop.engine.spelling import named, writes
from relprop.engine.traits import MOVES
from relprop.operations.flex_attention import requires_grad
from relprop.operations.sample_axes import with_axes
from relprop.torch_private.names import BACKWARD_HOOKS, STATE

register(
    *named(
        "eq ne lt_ le_ gt_ ge_ equal greater_ greater_equal_ less_ less_equal_ not_equal isclose allclose isfinite isinf isnan "
        "isneginf isposinf isreal isin is_nonzero signbit logical_and logical_or logical_xor logical_not_ any all "
        "__and__ __or__ __xor__ __rand__ __ror__ __rxor__ __iand__ __ior__ __ixor__ __lshift__ __rshift__ "
        "__rlshift__ __rrshift__ __ilshift__ __irshift__ __eq__ __ne__ "
        "bitwise_and bitwise_or bitwise_xor bitwise_not_ bitwise_left_shift bitwise_right_shift gcd lcm "
        "argmax argmin argsort argwhere nonzero nonzero_static count_nonzero bincount bucketize searchsorted histc "
        "histogram histogramdd unique unravel_index one_hot ceil floor round trunc fix sign heaviside floor_divide "
        "__floordiv__ __rfloordiv__ __ifloordiv__ frexp nextafter angle hash_tensor "
        "zeros_like ones_like empty_like full_like rand_like randn_like randint_like new_zeros new_ones new_empty "
        "new_full new_tensor bernoulli binomial multinomial normal poisson cauchy exponential geometric log_normal "
        "random uniform kaiming_uniform dim ndimension size numel nelement stride storage_offset storage storage_type "
        "untyped_storage data_ptr const_data_ptr element_size get_device is_complex is_contiguous is_floating_point "
        "is_inference is_conj is_neg is_pinned is_same_size is_set_to is_shared is_signed is_coalesced is_distributed "
        "is_tensor dim_order result_type can_cast promote_types broadcast_shapes __len__ __bool__ __contains__ __format__ "
        "__repr__ __str__ __float__ __int__ __index__ __complex__ __long__ __nonzero__ __array__ __array_wrap__ "
        "__deepcopy__ __reduce_ex__ __setstate__ __dlpack__ __dlpack_device__ __hash__ item tolist numpy detach "
        "requires_grad_ requires_grad retain_grad register_hook register_post_accumulate_grad_hook backward share_memory "
        "share_memory_ record_stream int long short byte char bool int_repr indices _indices _values _nnz _dimI _dimV "
        "sparse_dim dense_dim ccol_indices col_indices crow_indices row_indices ccol_indices_copy col_indices_copy "
        "crow_indices_copy row_indices_copy indices_copy values_copy qscheme q_scale q_zero_point q_per_channel_axis "
        "q_per_channel_scales q_per_channel_zero_points has_names _is_view _nested_tensor_size _nested_tensor_storage_offsets "
        "_nested_tensor_strides _nested_get_offsets _nested_get_lengths _nested_get_ragged_idx _nested_get_min_seqlen "
        "_nested_get_max_seqlen _nested_get_jagged_dummy _shape_as_tensor _clear_non_serializable_cached_data _assert_async _functional_assert_async "
        "__subclasscheck__ module_load set_ set sym_float sym_int sym_max sym_min sym_not sym_ite sym_sqrt sym_sum "
        "_sym_int _sym_sqrt _sym_acos _sym_asin _sym_atan _sym_cos _sym_cosh _sym_sin _sym_sinh _sym_tan _sym_tanh "
        "_nested_tensor_from_mask_left_aligned sparse_resize_ sparse_resize_and_clear_ apply_ map_ map2_ apply map map2 matrix_rank"
    ),
    family=SILENT,
)
_COMPARISONS = {True: "gt ge greater greater_equal __gt__ __ge__", False: "lt le less less_equal __lt__ __le__"}
for _positive, _names in _COMPARISONS.items():
    for _function in named(_names):
        if not writes(_function):
            register(_function, family=SILENT, only=True, answer=compared(_function, _positive))
for _function in named("logical_not bitwise_not __invert__"):
    if not writes(_function):
        register(_function, family=SILENT, only=True, answer=inverted(_function))
_ANSWERS = {"data": data.read, "requires_grad": requires_grad}
_VIEWS = ("T", "H", "mT", "mH", "real", "imag")
for _name in dir(Tensor):
    # properties (shape, device, T, ...) arrive as their getters; those that return a view are structure
    _property: Any = getattr(Tensor, _name, None)
    if type(_property).__name__ not in ("getset_descriptor", "property"):
        continue
    if _name in _VIEWS:
        _turned = with_axes(3) if _name in ("mT", "mH") else None
        register(_property.__get__, family="structure", only=True, traits={MOVES}, apart=_turned)
    else:
        register(_property.__get__, family=SILENT, only=True, answer=_ANSWERS.get(_name))
for _name in ("data", "requires_grad", "grad", "_grad", "names"):
    if (_setter := getattr(getattr(Tensor, _name, None), "__set__", None)) is not None:
        register(_setter, family=SILENT, only=True)
if BACKWARD_HOOKS is not None:
    register(BACKWARD_HOOKS, family=SILENT, only=True)
register(torch.autograd.grad, torch.autograd.backward, *STATE, family=SILENT, only=True)
_METHODS = "dim ndimension size numel nelement stride is_complex is_contiguous is_floating_point __len__"
_PROPERTIES = "shape ndim dtype device layout is_cuda is_cpu"
queries(
    *(getattr(Tensor, name) for name in _METHODS.split()),
    *(getattr(Tensor, name).__get__ for name in _PROPERTIES.split()),
)

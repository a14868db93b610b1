"""What operations make of tensors of ids, before a lookup turns these into numbers that carry relevance."""

from __future__ import annotations

from relprop.engine.integer_inputs import OnIds, declare_on_ids

declare_on_ids("to long int type type_as cpu cuda contiguous masked_fill clamp clone detach", OnIds(same=True))
declare_on_ids("where", OnIds(same=True, chooses=True))
declare_on_ids(
    "add radd sub rsub subtract mul rmul multiply mod remainder fmod floordiv floor_divide", OnIds(hashes=True)
)
declare_on_ids("cumsum diff neg negative sum_to_size index_add scatter_add resize resize_as", OnIds(other=True))
declare_on_ids(
    "copy fill fill_diagonal select_scatter slice_scatter diagonal_scatter as_strided_scatter", OnIds(value=1)
)
declare_on_ids("setitem masked_scatter", OnIds(value=2))
declare_on_ids("index_put put", OnIds(value=2, adds=3))
declare_on_ids("index_fill index_copy scatter pad", OnIds(value=3))

"""Operations for which propagation is not known: each raises an error with its reason."""

from __future__ import annotations

from torch.overrides import get_testing_overrides
from torch.utils.checkpoint import CheckpointFunction

from relprop.engine.registry import REFUSED, register
from relprop.engine.spelling import named
from relprop.operations import (  # noqa: F401  (what is supported comes first)
    attention,
    lookup,
    losses,
    normalisation,
    opaque,
    pooling,
    products,
    recurrent,
    reductions,
    silent,
    solvers,
    statistics,
    steps,
    structure,
    triangular,
)

_BETWEEN_PROCESSES = "it communicates between processes: explain what one of them computes"
REASONS = {
    "it is a loss that is not a sum of known steps: attribute the score it is computed from": (
        "ctc_loss linear_cross_entropy multilabel_margin_loss"
    ),
    "decompositions, inverses and determinants mix all entries of a matrix, and have no propagation rule": (
        "cholesky cholesky_ex cholesky_inverse det logdet slogdet eig eigh eigvals eigvalsh geqrf householder_product inv "
        "inv_ex inverse ldl_factor ldl_factor_ex lobpcg lu lu_factor lu_factor_ex lu_unpack matrix_exp matrix_sqrth orgqr pca_lowrank "
        "pinv pinverse qr svd svd_lowrank svdvals tensorinv cond"
    ),
    "it draws random numbers, so the decision is not a function of the inputs": "gumbel_softmax",
    "quantised tensors have no gradient: explain the model they were made from, or quantise its linear layers dynamically": (
        "quantize_per_channel quantize_per_tensor quantize_per_tensor_dynamic dequantize quantized_batch_norm "
        "quantized_gru_cell quantized_lstm_cell quantized_max_pool1d quantized_max_pool2d quantized_max_pool3d "
        "quantized_rnn_relu_cell quantized_rnn_tanh_cell fake_quantize_per_channel_affine fake_quantize_per_tensor_affine "
        "fused_moving_avg_obs_fake_quant choose_qparams_optimized fbgemm_linear_fp16_weight "
        "fbgemm_linear_fp16_weight_fp32_activation fbgemm_linear_int8_weight fbgemm_linear_int8_weight_fp32_activation "
        "fbgemm_linear_quantize_weight fbgemm_pack_gemm_matrix_fp16 fbgemm_pack_quantized_matrix _wrapped_linear_prepack "
        "_wrapped_quantized_linear_prepacked"
    ),
    "it is a kernel of one backend, or a part of training; the public spelling is supported": (
        "batch_norm_backward_elemt batch_norm_backward_reduce batch_norm_elemt batch_norm_gather_stats "
        "batch_norm_gather_stats_with_counts batch_norm_stats batch_norm_update_stats _native_batch_norm_legit "
        "_batch_norm_with_update miopen_batch_norm miopen_convolution miopen_convolution_add_relu miopen_convolution_relu "
        "miopen_convolution_transpose miopen_depthwise_convolution miopen_rnn _fw_primal_copy _make_dual_copy "
        "_rowwise_prune _sparse_mask_projection sspaddmm resize_as_sparse"
    ),
    "torch itself has no gradient of it": (
        "ldl_solve airy_ai bessel_y0 bessel_y1 chebyshev_polynomial_t chebyshev_polynomial_u chebyshev_polynomial_v "
        "chebyshev_polynomial_w hermite_polynomial_h hermite_polynomial_he laguerre_polynomial_l legendre_polynomial_p "
        "modified_bessel_i0 modified_bessel_i1 modified_bessel_k0 modified_bessel_k1 scaled_modified_bessel_k0 "
        "scaled_modified_bessel_k1 shifted_chebyshev_polynomial_t shifted_chebyshev_polynomial_u "
        "shifted_chebyshev_polynomial_v shifted_chebyshev_polynomial_w spherical_bessel_j0"
    ),
    "its result is complex, by a product with a function of the angle: write r * torch.cos(a) and r * torch.sin(a)": "polar",
    "it takes a derivative forward, a gradient of the model's own: explain the part of the model whose derivative is taken": (
        "_make_dual _unpack_dual"
    ),
    "it names the axes of a tensor, a prototype that torch has given up: write the model without such names": (
        "align_as align_to refine_names rename _update_names"
    ),
}


for _reason, _names in REASONS.items():
    register(*named(_names), family=REFUSED, reason=_reason)
for _module, _reason in (
    ("torch.distributed.distributed_c10d", _BETWEEN_PROCESSES),
    ("torch.foreach", "it works on lists of tensors at once, as optimisers do: write it for each tensor"),  # since 2.15
):
    _functions = (f for f in get_testing_overrides() if getattr(f, "__module__", "") == _module)
    register(*_functions, family=REFUSED, only=True, reason=_reason)
register(
    CheckpointFunction, family=REFUSED, only=True,
    reason="re-entrant checkpointing hides what it computes from autograd. Write checkpoint(..., use_reentrant=False), "
    "for models of transformers gradient_checkpointing_enable({'use_reentrant': False}); or switch it off and pass "
    "checkpoint=True to relprop",
)  # fmt: skip

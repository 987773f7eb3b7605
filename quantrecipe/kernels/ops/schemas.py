"""The operators ``torch.ops.quantrecipe.*``, as data: what each takes and gives on every device.

N outputs, K inputs, M rows, G groups of a row; ``group_size`` 0 = one group a row. Weights stand for
w = (code - zero) * scale with unsigned codes; ``zero_points`` are in these terms, in the scales' dtype, and need
not be whole; None or empty = 2^(b-1). ``packed`` is opaque: the layout of the device that it lies on.
Scales have the dtype of the weight or of x, and 8-bit products take fp32 scales.
"""

from __future__ import annotations

SCHEMAS: dict[str, str] = {
    # weight fp [N, K] -> int32 [N, ceil(K b / 32)] (pack-quantized), int8 [N, K] at 8 bits, or float8_e4m3fn [N, K];
    # scales [N, G] in the weight's dtype, zero_points [N, G] likewise (empty where symmetric); kind: int, fp8.
    "quantize_pack": "(Tensor weight, int num_bits, int group_size, bool symmetric, str kind='int')"
    " -> (Tensor, Tensor, Tensor)",
    # x fp [M, K], divided by smooth [K] -> codes int8 or float8_e4m3fn [M, K], scales fp32 [M, G].
    # int8: s = max|x| / 127.5 in [-128, 127] as compressed-tensors; fp8: s = max|x| / 448; kind: int8, fp8.
    "quantize_activation": "(Tensor x, str kind='int8', int group_size=0, Tensor? smooth=None) -> (Tensor, Tensor)",
    # codes uint8 [N, K], scales [N, G], zero_points [N, G] or None -> packed, scales and zero_points as
    # linear_weight_only is fastest with on this device, for x in dtype.
    "repack": "(Tensor codes, Tensor scales, Tensor? zero_points, int num_bits, int group_size, ScalarType dtype)"
    " -> (Tensor, Tensor, Tensor)",
    # x fp [..., K] -> [..., N] in x's dtype; scales plain [N, G] or repacked.
    "linear_weight_only": "(Tensor x, Tensor packed, Tensor scales, Tensor? zero_points, Tensor? bias, int num_bits,"
    " int group_size, int out_features) -> Tensor",
    # q int8 [M, K], x_scales fp32 [M], weight int8 [N, K], w_scales fp32 [N] -> [M, N]; with x_zero_points int32 [M]
    # x = (q - x_zero_point) x_scale, which takes w_sums int32 [N], of each row of weight (computed where None).
    "linear_w8a8": "(Tensor q, Tensor x_scales, Tensor weight, Tensor w_scales, Tensor? x_zero_points,"
    " Tensor? w_sums, Tensor? bias, ScalarType out_dtype) -> Tensor",
    # codes uint8 [N, K] of symmetric 4 bits -> packed, for linear_w4a8.
    "repack_w4a8": "(Tensor codes) -> Tensor",
    # w = (code - 8) group_scale w_scale; group_scales int8 [N, G], (code - 8) group_scale within int8; None = 1.
    "linear_w4a8": "(Tensor q, Tensor x_scales, Tensor packed, Tensor w_scales, Tensor? group_scales, Tensor? bias,"
    " int group_size, ScalarType out_dtype) -> Tensor",
    # q float8_e4m3fn [M, K] with x_scales fp32 [M], or fp [M, K] without; weight float8_e4m3fn [N, K], w_scales
    # fp32 [N].
    "linear_fp8": "(Tensor q, Tensor? x_scales, Tensor weight, Tensor w_scales, Tensor? bias, ScalarType out_dtype)"
    " -> Tensor",
    # x fp [M, K]; columns with some |x| >= threshold are multiplied in 16 bits (arXiv:2208.07339, section 3.2).
    "linear_llm_int8": "(Tensor x, Tensor weight, Tensor w_scales, float threshold, Tensor? bias) -> Tensor",
    # weight fp32 [B, N, C] or [N, C], factor fp32 [B, C, C] or [C, C] (upper Cholesky factor of the inverse Hessian),
    # scales and zero_points fp32 [.., N, G], groups int64 [C]: the scale of each column
    # -> signed codes int8 [.., N, C], errors fp32 [.., N, C] (kernels/gptq_block.py); zero_points in signed terms.
    "gptq_block": "(Tensor weight, Tensor factor, Tensor scales, Tensor zero_points, Tensor groups, int num_bits)"
    " -> (Tensor, Tensor)",
    # -> [N, K] in dtype, from what repack gave, or plain scales.
    "dequantize": "(Tensor packed, Tensor scales, Tensor? zero_points, int num_bits, int group_size, int in_features,"
    " ScalarType dtype) -> Tensor",
}

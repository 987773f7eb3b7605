// y = (x x_scale) (w w_scale)^T + bias with int8 x and int4 w, in mma.m16n8k32's int8 product.
//
// GROUPED 0: FastGEMM's way (arXiv:2308.15987): a code becomes the high nibble of a byte, sixteen times its value, and the
// sixteenth goes into the scale: one instruction for four weights, or two, and no subtraction.
// GROUPED 1: two levels, as QServe (arXiv:2405.04532): int8 weight = (code - 8) multiplier, the multiplier a small whole
// number of a group. Four weights in one multiply-add: with codes c in the bytes of a word, c multiplier + (128 - 8
// multiplier) stays within each byte, whatever the sign, and is the int8 weight with its top bit turned.
// Units are those of the 4-bit layout, with byte b of word w: column 16 t + 4 w + b; low nibble row g, high nibble row g + 8.
// Macros: SCALAR f16 | bf16 (of y and bias), GROUPED, ROWS (of x, a tile: 8, 16, 32 or 64).
#include "weights_first.cuh"

constexpr int OUTPUT_WARPS = ROWS < 64 ? 2 : 4, COLUMN_WARPS = ROWS < 64 ? 4 : 1, STAGES = 4;

struct FourByEight {
  using Number = int;
  using Output = SCALAR;
  static constexpr int WIDTH = 4, HALVES = 1;
  struct RowScales {
    unsigned by[2], plus[2];
  };

  const float* x_scales;
  const float* w_scales;
  const SCALAR* bias;
  const signed char* multipliers;
  int n, groups, row_stride, group_stride;
  unsigned reciprocal;

  __device__ __forceinline__ RowScales read_scales(int row, int column) const {
    RowScales found = {};
    if (GROUPED) {
      const int group = min(int(__umulhi(unsigned(column), reciprocal)), groups - 1);
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        found.by[r] = unsigned(multipliers[(long long)min(row + 8 * r, n - 1) * row_stride + (long long)group * group_stride]);
        found.plus[r] = (128u - 8u * found.by[r]) * 0x01010101u;
      }
    }
    return found;
  }

  // Register p of product i: row p % 2 of word 2 i + p / 2.
  static __device__ __forceinline__ void fragments(const Codes<4>& codes, int, const RowScales& scales, unsigned (&a)[2][4]) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int p = 0; p < 4; ++p) {
        const unsigned word = codes.word[2 * i + p / 2];
        if (GROUPED) {
          const unsigned four = (p % 2 ? word >> 4 : word) & 0x0f0f0f0fu;
          a[i][p] = (four * scales.by[p % 2] + scales.plus[p % 2]) ^ 0x80808080u;
        } else {
          a[i][p] = lop3<0x6a>(p % 2 ? word : word << 4, 0xf0f0f0f0u, 0x80808080u);  // (word & mask) ^ signs
        }
      }
    }
  }

  static __device__ __forceinline__ void multiply(int (&sum)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    mma_16x8x32_s8(sum, a, b);
  }

  __device__ __forceinline__ SCALAR finish(int sum, int output, int row) const {
    const float scale = w_scales[output] * (GROUPED ? 1.0f : 0.0625f) * x_scales[row];
    return from_float<SCALAR>(float(sum) * scale + (bias ? to_float(bias[output]) : 0.0f));
  }
};

// x int8 [m, k], k a multiple of 16, x_scales fp32 [m], packed int32 [ceil(n / 16), ceil(k / 64), 128], w_scales fp32 [n],
// multipliers int8 [n, groups] with strides (GROUPED), the group size a multiple of 16; bias [n] or null; y [m, n];
// partial int32 [2 gridDim.x, ROWS, outputs of a tile], arrivals int32 [tiles], zeros.
extern "C" __global__ void __launch_bounds__(32 * OUTPUT_WARPS * COLUMN_WARPS, 1)
gemm_w4a8(const unsigned char* x, const float* x_scales, const unsigned char* packed, const float* w_scales,
          const signed char* multipliers, const SCALAR* bias, SCALAR* y, int* partial, int* arrivals, int m, int n, int k,
          int groups, int group_reciprocal, int row_stride, int group_stride) {
  DYNAMIC_SHARED(shared);
  const FourByEight product = {x_scales, w_scales, bias, multipliers, n, groups, row_stride, group_stride,
                               unsigned(group_reciprocal)};
  const WeightsFirst<FourByEight, ROWS, OUTPUT_WARPS, COLUMN_WARPS, STAGES> tiles = {product, x, packed, shared, m, n,
                                                                                     (k + 63) / 64, k / 16};
  tiles.run(y, partial, arrivals);
}

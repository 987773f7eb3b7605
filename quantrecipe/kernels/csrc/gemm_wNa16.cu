// y = x dequantize(packed)^T + bias for M up to a few hundred: gemm_w4a16 and gemm_w8a16, and the other widths.
//
// cp.async brings x and units in STAGES stages; codes become A fragments in registers, scaled there, and meet x, read
// sixteen bytes a lane (as much as ldmatrix.x4 brings; units order their columns so that this is a B fragment).
// Macros: SCALAR f16 | bf16, BITS, ZEROS 0 | 1, ROWS (of x, a tile: 16, 32 or 64).
#include "weights_first.cuh"

// Few rows: narrow tiles, so that stripes are cut less often, their columns shared by four warps. STAGES fit 99 KiB.
constexpr int OUTPUT_WARPS = ROWS < 64 ? 2 : 4, COLUMN_WARPS = ROWS < 64 ? 4 : 1;
constexpr int STAGES = ROWS == 32 ? 3 : 4;

struct WeightOnly {
  using Number = float;
  using Output = SCALAR;
  static constexpr int WIDTH = BITS, HALVES = 2;
  struct RowScales {
    RowScale<SCALAR> row[2];
  };

  Scales<SCALAR> scales;
  const SCALAR* bias;

  __device__ __forceinline__ RowScales read_scales(int row, int column) const {
    return {{scales.read<ZEROS>(row, column), scales.read<ZEROS>(row + 8, column)}};
  }

  static __device__ __forceinline__ void fragments(const Codes<BITS>& codes, int h, const RowScales& by, unsigned (&a)[2][4]) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int p = 0; p < 4; ++p) a[i][p] = weight_pair<SCALAR, BITS, ZEROS>(codes, 2 * h + i, p, by.row[p % 2]);
    }
  }

  static __device__ __forceinline__ void multiply(float (&sum)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    mma_16x8x16<SCALAR>(sum, a, b);
  }

  __device__ __forceinline__ SCALAR finish(float sum, int output, int) const {
    return from_float<SCALAR>(sum + (bias ? to_float(bias[output]) : 0.0f));
  }
};

// x [m, k], k a multiple of 8, packed int32 [ceil(n / 16), ceil(k / 64), 32 BITS], scales and zeros [n, groups] with
// strides, the group size a multiple of 16; bias [n] or null; y [m, n]; partial fp32 [2 gridDim.x, ROWS, outputs of a
// tile], arrivals int32 [tiles], zeros.
extern "C" __global__ void __launch_bounds__(32 * OUTPUT_WARPS * COLUMN_WARPS, 1)
gemm_wNa16(const unsigned char* x, const unsigned char* packed, const SCALAR* scales, const SCALAR* zeros, const SCALAR* bias,
           SCALAR* y, float* partial, int* arrivals, int m, int n, int k, int groups, int group_reciprocal,
           int row_stride, int group_stride) {
  DYNAMIC_SHARED(shared);
  const WeightOnly product = {{scales, zeros, n, groups, row_stride, group_stride, unsigned(group_reciprocal)}, bias};
  const WeightsFirst<WeightOnly, ROWS, OUTPUT_WARPS, COLUMN_WARPS, STAGES> tiles = {product, x, packed, shared, m, n,
                                                                                    (k + 63) / 64, k / 8};
  tiles.run(y, partial, arrivals);
}

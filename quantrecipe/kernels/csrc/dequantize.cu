// Packed codes (wna16_decode.cuh) to 16-bit weights [N, K]: a warp a unit of 16 rows x 64 columns, so that the four lanes
// of a row write 128 bytes on end. Numbers are those that gemv and gemm multiply by.
#include "wna16_decode.cuh"

#define WARPS 8

// The lane's 16 columns of rows g and g + 8.
template <bool HAS_ZERO>
__device__ __forceinline__ void decode(const Codes<BITS>& codes, const Scales<SCALAR>& scales, bool whole, int row, int column,
                                       vec16<SCALAR> (&out)[2][2]) {
  RowScale<SCALAR> of_row[2];
#pragma unroll
  for (int r = 0; r < 2; r++) of_row[r] = scales.read<HAS_ZERO>(row + 8 * r, column);
#pragma unroll
  for (int j = 0; j < 4; j++)
#pragma unroll
    for (int p = 0; p < 4; p++) {
      const int r = p % 2, at = 4 * j + 2 * (p / 2);
      if (!whole) of_row[r] = scales.read_two<HAS_ZERO>(row + 8 * r, column + at);
      const unsigned pair = weight_pair<SCALAR, BITS, HAS_ZERO>(codes, j, p, of_row[r]);
      out[r][at / 8].each[at % 8].bits = (unsigned short)pair;
      out[r][at / 8].each[at % 8 + 1].bits = (unsigned short)(pair >> 16);
    }
}

// scales, zeros: [N, G] with strides; zeros null where symmetric. reciprocal: see Scales. whole: a group ends only at
// multiples of 16 columns. aligned: rows of weight lie on 16 bytes.
extern "C" __global__ void __launch_bounds__(32 * WARPS, 4)
    dequantize(const unsigned char* packed, const SCALAR* scale, const SCALAR* zero, SCALAR* weight, int rows, int columns,
               int groups, int row_stride, int group_stride, unsigned reciprocal, int whole, int aligned) {
  const int lane = threadIdx.x % 32, across = (columns + 63) / 64;
  const long long unit = (long long)blockIdx.x * WARPS + threadIdx.x / 32;
  if (unit >= (long long)((rows + 15) / 16) * across) return;
  const int row = int(unit / across) * 16 + lane / 4, column = int(unit % across) * 64 + 16 * (lane % 4);
  const Scales<SCALAR> scales{scale, zero, rows, groups, row_stride, group_stride, reciprocal};
  const Codes<BITS> codes = read_codes<BITS, true>(packed + unit * (128 * BITS), lane);
  vec16<SCALAR> out[2][2];
  if (zero) decode<true>(codes, scales, whole, row, column, out);
  else decode<false>(codes, scales, whole, row, column, out);
#pragma unroll
  for (int r = 0; r < 2; r++)
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int first = column + 8 * half;
      if (row + 8 * r >= rows) continue;
      SCALAR* to = weight + (long long)(row + 8 * r) * columns + first;
      if (aligned && first + 8 <= columns) {
        store_vec16(to, out[r][half]);
        continue;
      }
#pragma unroll
      for (int i = 0; i < 8; i++)
        if (first + i < columns) to[i] = out[r][half].each[i];
    }
}

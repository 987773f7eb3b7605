// y = x dequantize(packed)^T + bias for up to eight rows of x: memory-bound, so weights go straight to registers, once.
//
// A block owns 16 outputs; its warps take every eighth unit of 64 columns, ahead by DEPTH units each, and multiply by
// mma.m16n8k16 with the weight as A (16 outputs) and x as B (8 rows). gridDim.y blocks share the columns where outputs
// are few. Macros: SCALAR f16 | bf16, BITS, ZEROS 0 | 1, FINE 0 | 1 (a group size that is no multiple of 16).
#include "stripes.cuh"
#include "wna16_decode.cuh"

constexpr int WARPS = 8;
constexpr int DEPTH = FINE ? 1 : BITS > 4 ? 2 : 4;

struct Unit {
  Codes<BITS> codes;
  uint4 x[2];
  RowScale<SCALAR> row[2];
};

// Where a lane reads its next unit: addresses move by additions.
struct Cursor {
  const unsigned char* weight;
  const SCALAR* x;
  int column;
};

struct RowsOfScales {
  const SCALAR* scale[2];
  const SCALAR* zero[2];
  int groups, group_stride;
  unsigned reciprocal;

  __device__ __forceinline__ RowsOfScales(const Scales<SCALAR>& all, int row)
      : groups(all.groups), group_stride(all.group_stride), reciprocal(all.reciprocal) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const long long start = (long long)min(row + 8 * r, all.rows - 1) * all.row_stride;
      scale[r] = all.scale + start;
      zero[r] = ZEROS ? all.zero + start : nullptr;
    }
  }

  __device__ __forceinline__ int at(int column) const {
    return min(int(__umulhi(unsigned(column), reciprocal)), groups - 1) * group_stride;
  }
};

__device__ __forceinline__ Unit read_unit(const Cursor& at, const RowsOfScales& scales, int lane) {
  Unit held;
  held.codes = read_codes<BITS, true>(at.weight, lane);
  held.x[0] = reinterpret_cast<const uint4*>(at.x)[0];
  held.x[1] = reinterpret_cast<const uint4*>(at.x)[1];
  if (!FINE) {
    const int group = scales.at(at.column);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      held.row[r].scale.bits = scales.scale[r][group].bits * 0x10001u;
      held.row[r].zero.bits = ZEROS ? scales.zero[r][group].bits * 0x10001u : 0u;
    }
  }
  return held;
}

__device__ __forceinline__ RowScale<SCALAR> two_scales(const RowsOfScales& scales, int r, int column) {
  const int low = scales.at(column), high = scales.at(column + 1);
  const SCALAR *scale = scales.scale[r], *zero = scales.zero[r];
  RowScale<SCALAR> found;
  found.scale.bits = scale[low].bits | unsigned(scale[high].bits) << 16;
  found.zero.bits = ZEROS ? zero[low].bits | unsigned(zero[high].bits) << 16 : 0u;
  return found;
}

__device__ __forceinline__ void multiply_unit(float (&sum)[4], const Unit& held, const RowsOfScales& scales, int column) {
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    unsigned a[4];
#pragma unroll
    for (int p = 0; p < 4; ++p) {
      const RowScale<SCALAR> row = FINE ? two_scales(scales, p % 2, column + 4 * j + 2 * (p / 2)) : held.row[p % 2];
      a[p] = weight_pair<SCALAR, BITS, ZEROS>(held.codes, j, p, row);
    }
    const uint4 x = held.x[j / 2];
    const unsigned b[2] = {j % 2 ? x.z : x.x, j % 2 ? x.w : x.y};
    mma_16x8x16<SCALAR>(sum, a, b);
  }
}

// This warp's share of 16 outputs x 8 rows: units at the cursor and every ``step`` after it, ``left`` of them.
__device__ __forceinline__ void multiply_units(float (&sum)[4], Cursor at, const RowsOfScales& scales, int step, int left,
                                               int lane) {
  const auto take = [&](Unit& held) {
    held = read_unit(at, scales, lane);
    at.weight += step * (128 * BITS);
    at.x += step * 64;
    at.column += step * 64;
  };
  Unit held[DEPTH];
  int column = at.column;
#pragma unroll
  for (int d = 0; d < DEPTH; ++d) {
    if (d < left) take(held[d]);
  }
  for (; left > DEPTH; left -= DEPTH) {
#pragma unroll
    for (int d = 0; d < DEPTH; ++d, column += step * 64) {
      multiply_unit(sum, held[d], scales, column);
      if (d + DEPTH < left) take(held[d]);
    }
  }
#pragma unroll
  for (int d = 0; d < DEPTH; ++d, column += step * 64) {
    if (d < left) multiply_unit(sum, held[d], scales, column);
  }
}

// x [m, k], k a multiple of 64, packed int32 [ceil(n / 16), k / 64, 32 BITS], scales and zeros [n, groups] with strides, bias [n] or
// null, y [m, n]; partial fp32 [tiles, gridDim.y, 128] and arrivals int32 [tiles] (zeros) where gridDim.y > 1.
extern "C" __global__ void __launch_bounds__(32 * WARPS, 2)
gemv_wNa16(const SCALAR* x, const unsigned char* packed, const SCALAR* scales, const SCALAR* zeros, const SCALAR* bias,
           SCALAR* y, float* partial, int* arrivals, int m, int n, int k, int groups, int group_reciprocal,
           int row_stride, int group_stride) {
  __shared__ float warp_sum[WARPS][128];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, tile = blockIdx.x, units = k / 64;
  const RowsOfScales of_rows({scales, zeros, n, groups, row_stride, group_stride, unsigned(group_reciprocal)},
                             16 * tile + lane / 4);
  const int first = blockIdx.y * WARPS + warp, step = gridDim.y * WARPS, column = 64 * first + 16 * (lane % 4);
  // Rows of x past the last repeat it: their sums are dropped.
  const Cursor start = {packed + ((long long)tile * units + first) * (128 * BITS),
                        x + (long long)min(lane / 4, m - 1) * k + column, column};
  float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  multiply_units(sum, start, of_rows, step, (units - first + step - 1) / step, lane);
#pragma unroll
  for (int i = 0; i < 4; ++i) warp_sum[warp][16 * (2 * (lane % 4) + i % 2) + lane / 4 + 8 * (i / 2)] = sum[i];
  __syncthreads();

  const int at = threadIdx.x, output = 16 * tile + at % 16, x_row = at / 16;
  float value = 0.0f;
  if (at < 128) {
    for (int w = 0; w < WARPS; ++w) value += warp_sum[w][at];
  }
  if (gridDim.y > 1) {
    float* all = partial + (long long)tile * gridDim.y * 128;
    if (at < 128) all[blockIdx.y * 128 + at] = value;
    if (!last_to_arrive(arrivals + tile, gridDim.y)) return;
    value = 0.0f;
    if (at < 128) {
      for (int part = 0; part < int(gridDim.y); ++part) value += read_fresh(all + part * 128 + at);
    }
  }
  if (at < 128 && x_row < m && output < n) {
    y[(long long)x_row * n + output] = from_float<SCALAR>(value + (bias ? to_float(bias[output]) : 0.0f));
  }
}

// y = x_scale (x - x_zero) (w w_scale)^T + bias in int8: both operands by cp.async and ldmatrix, mma.m16n8k32, exact sums.
//
// Macros: SCALAR f16 | bf16 (of y and bias), ROWS (of x, a tile: 16, 64 or 128), OUTLIERS 0 | 1: what the
// codes of some columns of x leave is multiplied in 16 bits in the same launch (LLM.int8, arXiv:2208.07339 section 3.2).
#include "outliers.cuh"
#include "stripes.cuh"

constexpr int OUTPUTS = ROWS == 16 ? 64 : 128, ROW_WARPS = ROWS == 16 ? 1 : 2, OUTPUT_WARPS = 4;
constexpr int COLUMNS = 128, STAGES = ROWS == 16 ? 4 : 3;  // bytes of K a stage; 96 KiB at the most
constexpr int THREADS = 32 * ROW_WARPS * OUTPUT_WARPS, CHUNKS = COLUMNS / 16;  // of a row of a stage, 16 bytes each
constexpr int X_BYTES = ROWS * COLUMNS, STAGE_BYTES = X_BYTES + OUTPUTS * COLUMNS;
constexpr int M_TILES = ROWS / ROW_WARPS / 16, N_TILES = OUTPUTS / OUTPUT_WARPS / 8;  // of a warp: 16 rows, 8 outputs
using Number = typename choose<OUTLIERS, float, int>::type;  // of a partial sum

struct Operands {
  const signed char* x;  // [m, k]
  const float* x_scales;
  const int* x_zeros;         // null: none
  const signed char* weight;  // [n, k]
  const float* w_scales;
  const int* w_sums;  // of rows, for zero points
  const SCALAR* bias;
  SCALAR* y;
  int m, n, k;

  __device__ __forceinline__ int output_tiles() const { return (n + OUTPUTS - 1) / OUTPUTS; }
  __device__ __forceinline__ int tiles() const { return output_tiles() * ((m + ROWS - 1) / ROWS); }
  __device__ __forceinline__ int steps() const { return (k + COLUMNS - 1) / COLUMNS; }
  __device__ __forceinline__ int row_of(int tile) const { return tile / output_tiles() * ROWS; }
  __device__ __forceinline__ int output_of(int tile) const { return tile % output_tiles() * OUTPUTS; }
};

// Eight rows' pieces of the same chunk, which ldmatrix takes together, lie in different banks.
__device__ __forceinline__ int place(int row, int chunk) {
  return 16 * (row * CHUNKS + (chunk ^ (row & 7)));
}

template <int COUNT>
__device__ __forceinline__ void fetch_rows(unsigned char* to, const signed char* from, int first, int limit, int step, int k) {
  for (int i = threadIdx.x; i < COUNT * CHUNKS; i += THREADS) {
    const int row = i / CHUNKS, chunk = i % CHUNKS, column = step * COLUMNS + 16 * chunk;
    const bool inside = first + row < limit && column < k;
    cp_async_16(to + place(row, chunk), from + (inside ? (long long)(first + row) * k + column : 0), inside);
  }
}

__device__ __forceinline__ void fetch(const Operands& all, unsigned char* shared, int tile, int step, int last, int stage) {
  if (step < last) {
    unsigned char* const at = shared + stage * STAGE_BYTES;
    fetch_rows<ROWS>(at, all.x, all.row_of(tile), all.m, step, all.k);
    fetch_rows<OUTPUTS>(at + X_BYTES, all.weight, all.output_of(tile), all.n, step, all.k);
  }
  cp_async_commit();
}

using Sums = int[M_TILES][N_TILES][4];

__device__ __forceinline__ void multiply_stage(Sums& sums, const unsigned char* at, int warp_row, int warp_output, int lane) {
#pragma unroll
  for (int step = 0; step < COLUMNS / 32; ++step) {
    unsigned a[M_TILES][4], b[N_TILES][2];
#pragma unroll
    for (int i = 0; i < M_TILES; ++i) {
      ldmatrix_x4(a[i], at + place(warp_row + 16 * i + lane % 16, 2 * step + lane / 16));
    }
#pragma unroll
    for (int j = 0; j < N_TILES; j += 2) {
      unsigned both[4];
      ldmatrix_x4(both, at + X_BYTES + place(warp_output + 8 * j + lane % 8 + 8 * (lane / 16), 2 * step + lane / 8 % 2));
      b[j][0] = both[0], b[j][1] = both[1], b[j + 1][0] = both[2], b[j + 1][1] = both[3];
    }
#pragma unroll
    for (int j = 0; j < N_TILES; ++j) {
#pragma unroll
      for (int i = 0; i < M_TILES; ++i) mma_16x8x32_s8(sums[i][j], a[i], b[j]);
    }
  }
}

__device__ __forceinline__ void multiply_steps(Sums& sums, const Operands& all, unsigned char* shared, const Stripe& stripe,
                                               int warp_row, int warp_output, int lane) {
  const int tile = stripe.tile(), first = stripe.first(), last = stripe.last();
#pragma unroll
  for (int stage = 0; stage < STAGES - 1; ++stage) fetch(all, shared, tile, first + stage, last, stage);
  for (int step = first, stage = 0; step < last; ++step, stage = stage + 1 == STAGES ? 0 : stage + 1) {
    cp_async_wait<STAGES - 2>();
    __syncthreads();  // the stage has come for all, and all are done with the one that is fetched next
    fetch(all, shared, tile, step + STAGES - 1, last, stage == 0 ? STAGES - 1 : stage - 1);
    multiply_stage(sums, shared + stage * STAGE_BYTES, warp_row, warp_output, lane);
  }
  cp_async_wait<0>();
  __syncthreads();
}

// Two neighbouring outputs of a row. ``Number`` is int, or float with x's scale already in it.
__device__ __forceinline__ void write_two(const Operands& all, int row, int output, Number low, Number high) {
  if (row >= all.m || output >= all.n) return;
  const float x_scale = OUTLIERS ? 1.0f : all.x_scales[row];
  const int next = min(output + 1, all.n - 1);
  if (!OUTLIERS && all.x_zeros) {  // sum of w (x - zero)
    low -= all.x_zeros[row] * all.w_sums[output];
    high -= all.x_zeros[row] * all.w_sums[next];
  }
  float first = float(low) * x_scale * all.w_scales[output], second = float(high) * x_scale * all.w_scales[next];
  if (all.bias) first += to_float(all.bias[output]), second += to_float(all.bias[next]);
  SCALAR* const to = all.y + (long long)row * all.n + output;
  if (all.n % 2 == 0) {
    *reinterpret_cast<pair_t<SCALAR>*>(to) = from_float2<SCALAR>(first, second);
  } else {
    to[0] = from_float<SCALAR>(first);
    if (output + 1 < all.n) to[1] = from_float<SCALAR>(second);
  }
}

__device__ __forceinline__ void write_all(const Operands& all, const Number (&sums)[M_TILES][N_TILES][4], int row, int output,
                                          int lane) {
#pragma unroll
  for (int i = 0; i < M_TILES; ++i) {
#pragma unroll
    for (int j = 0; j < N_TILES; ++j) {
      const int to_row = row + 16 * i + lane / 4, to_output = output + 8 * j + 2 * (lane % 4);
      write_two(all, to_row, to_output, sums[i][j][0], sums[i][j][1]);
      write_two(all, to_row + 8, to_output, sums[i][j][2], sums[i][j][3]);
    }
  }
}

// A tile that is cut: sums go to ``partial`` [slots, sums of a thread, threads]; true for the last block, with all added.
__device__ __forceinline__ bool combine(Number (&sums)[M_TILES][N_TILES][4], const Stripe& stripe, Number* partial,
                                        int* arrivals) {
  constexpr int count = M_TILES * N_TILES * 4;
  Number* const mine = partial + (long long)stripe.slot() * count * THREADS + threadIdx.x;
#pragma unroll
  for (int i = 0; i < count; ++i) mine[i * THREADS] = sums[i / (4 * N_TILES)][i / 4 % N_TILES][i % 4];
  const int from = stripe.first_owner(), to = stripe.last_owner();
  if (!last_to_arrive(arrivals + stripe.tile(), to - from + 1)) return false;
#pragma unroll
  for (int i = 0; i < count; ++i) {
    Number sum = 0;
    for (int b = from; b <= to; ++b) {
      sum += read_fresh(partial + ((long long)stripe.slot_of(b) * count + i) * THREADS + threadIdx.x);
    }
    sums[i / (4 * N_TILES)][i / 4 % N_TILES][i % 4] = sum;
  }
  return true;
}

// x int8 [m, k], k a multiple of 16, x_scales fp32 [m], x_zeros int32 [m] or null, weight int8 [n, k], w_scales fp32
// [n], w_sums int32 [n] (sums of rows, where there are zero points), bias [n] or null, y [m, n]; partial [2 gridDim.x, ROWS OUTPUTS], arrivals int32 [tiles], zeros. OUTLIERS: x16 [m, k],
// the columns (int32) and how many.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
gemm_w8a8(const signed char* x, const float* x_scales, const int* x_zeros, const signed char* weight, const float* w_scales,
          const int* w_sums, const SCALAR* bias, SCALAR* y, Number* partial, int* arrivals, const SCALAR* x16, const int* columns,
          const int* column_count, int m, int n, int k) {
  DYNAMIC_SHARED(shared);
  const Operands all = {x, x_scales, x_zeros, weight, w_scales, w_sums, bias, y, m, n, k};
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int warp_row = warp % ROW_WARPS * (16 * M_TILES), warp_output = warp / ROW_WARPS * (8 * N_TILES);
  for (Stripe stripe(all.tiles(), all.steps()); stripe.more(); stripe.next()) {
    Sums sums = {};
    multiply_steps(sums, all, shared, stripe, warp_row, warp_output, lane);
    const int tile_row = all.row_of(stripe.tile()), tile_output = all.output_of(stripe.tile());
    const int row = tile_row + warp_row, output = tile_output + warp_output;
#if OUTLIERS
    float real[M_TILES][N_TILES][4];
#pragma unroll
    for (int i = 0; i < M_TILES * N_TILES * 4; ++i) {
      const int to_row = row + 16 * (i / (4 * N_TILES)) + lane / 4 + 8 * (i % 4 / 2);
      real[i / (4 * N_TILES)][i / 4 % N_TILES][i % 4] =
          float(sums[i / (4 * N_TILES)][i / 4 % N_TILES][i % 4]) * x_scales[min(to_row, m - 1)];
    }
    if (stripe.first() == 0) {
      const OutlierTile<SCALAR, ROWS, OUTPUTS, THREADS> gathered = {
          shared, x16, x, x_scales, weight, columns, *column_count, m, n, k};
      gathered.add<M_TILES, N_TILES>(real, tile_row, tile_output, warp_row, warp_output, lane);
    }
    if (stripe.whole() || combine(real, stripe, partial, arrivals)) write_all(all, real, row, output, lane);
#else
    if (stripe.whole() || combine(sums, stripe, partial, arrivals)) write_all(all, sums, row, output, lane);
#endif
  }
}

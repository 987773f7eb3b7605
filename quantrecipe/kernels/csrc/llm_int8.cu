// LLM.int8's preparation (arXiv:2208.07339, section 3.2): which columns of x have an outlier, and x without them in int8.
// The product of both parts is one launch: gemm_w8a8 with OUTLIERS. Macro: SCALAR f16 | bf16.
#include "stripes.cuh"

constexpr int THREADS = 256, SEEN_ROWS = 64;  // of x, by one block

// Columns (of k) where ``flags`` is set, ascending, to ``columns``, their number to ``count``; flags move to ``is_outlier``.
__device__ __forceinline__ void list_columns(int* flags, unsigned char* is_outlier, int* columns, int* count, int k) {
  __shared__ int before[THREADS + 1];
  const int run = (k + THREADS - 1) / THREADS, first = min(int(threadIdx.x) * run, k), last = min(first + run, k);
  int mine = 0;
  for (int column = first; column < last; ++column) {
    const int flag = read_fresh(flags + column);
    is_outlier[column] = (unsigned char)flag;
    flags[column] = 0;
    mine += flag;
  }
  before[threadIdx.x + 1] = mine;
  __syncthreads();
  if (threadIdx.x == 0) {
    before[0] = 0;
    for (int i = 1; i <= THREADS; ++i) before[i] += before[i - 1];
    *count = before[THREADS];
  }
  __syncthreads();
  int at = before[threadIdx.x];
  for (int column = first; column < last; ++column) {
    if (is_outlier[column]) columns[at++] = column;
  }
}

// x [m, k], k a multiple of 8; flags int32 [k] and arrivals int32 [1], zeros before and after; is_outlier u8 [k];
// columns int32 [k], count int32 [1]. Grid: columns in runs of 256, rows in runs of 64.
extern "C" __global__ void __launch_bounds__(THREADS)
llm_int8_outliers(const SCALAR* x, float threshold, int* flags, int* arrivals, unsigned char* is_outlier, int* columns,
                  int* count, int m, int k) {
  const int column = 256 * blockIdx.x + threadIdx.x % 32 * 8, first = SEEN_ROWS * blockIdx.y + threadIdx.x / 32;
  float most[8] = {};
  if (column < k) {
    for (int row = first; row < min(m, SEEN_ROWS * int(blockIdx.y + 1)); row += THREADS / 32) {
      const vec16<SCALAR> eight = load_vec16(x + (long long)row * k + column);
#pragma unroll
      for (int i = 0; i < 8; ++i) most[i] = fmaxf(most[i], fabsf(to_float(eight.each[i])));
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if (most[i] >= threshold) flags[column + i] = 1;  // whoever writes writes the same
    }
  }
  if (last_to_arrive(arrivals, gridDim.x * gridDim.y)) list_columns(flags, is_outlier, columns, count, k);
}

// One row a block: codes int8 [m, k] = round(127 x / max|x|) over columns that are no outliers, 0 in those; scales fp32 [m].
extern "C" __global__ void __launch_bounds__(THREADS)
llm_int8_quantize(const SCALAR* x, const unsigned char* is_outlier, signed char* codes, float* scales, int k) {
  __shared__ float warp_most[THREADS / 32];
  const long long start = (long long)blockIdx.x * k;
  float most = 0.0f;
  for (int column = threadIdx.x; column < k; column += THREADS) {
    if (!is_outlier[column]) most = fmaxf(most, fabsf(to_float(x[start + column])));
  }
#pragma unroll
  for (int apart = 16; apart > 0; apart /= 2) most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, apart));
  if (threadIdx.x % 32 == 0) warp_most[threadIdx.x / 32] = most;
  __syncthreads();
  for (int warp = 0; warp < THREADS / 32; ++warp) most = fmaxf(most, warp_most[warp]);
  const float scale = most > 0.0f ? most / 127.0f : 1.0f;
  if (threadIdx.x == 0) scales[blockIdx.x] = scale;
  for (int column = threadIdx.x; column < k; column += THREADS) {
    const float code = is_outlier[column] ? 0.0f : rintf(to_float(x[start + column]) / scale);
    codes[start + column] = (signed char)int(fminf(fmaxf(code, -127.0f), 127.0f));
  }
}

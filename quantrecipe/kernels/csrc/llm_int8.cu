// LLM.int8's preparation (arXiv:2208.07339, section 3.2) in one launch: int8 codes of x, and which columns have an outlier.
//
// A token's scale comes from its numbers below the threshold, so a row needs no other row. Such numbers in a column that
// an outlier elsewhere takes to 16 bits are coded too: gemm_w8a8 with OUTLIERS multiplies what their codes leave, in 16 bits.
// Macro: SCALAR f16 | bf16.
#include "stripes.cuh"

constexpr int THREADS = 256;

union EightCodes {
  uint2 raw;
  signed char each[8];
};

__device__ __forceinline__ float greatest_of_block(float mine) {
  __shared__ float of_warp[THREADS / 32];
#pragma unroll
  for (int apart = 16; apart > 0; apart /= 2) mine = fmaxf(mine, __shfl_xor_sync(0xffffffffu, mine, apart));
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = mine;
  __syncthreads();
#pragma unroll
  for (int warp = 0; warp < THREADS / 32; ++warp) mine = fmaxf(mine, of_warp[warp]);
  return mine;
}

// Columns (of k) where ``flags`` is set, ascending, to ``columns``, their number to ``count``; flags become zero again.
__device__ __forceinline__ void list_columns(int* flags, int* columns, int* count, int k) {
  __shared__ int before[THREADS + 1];
  const int run = (k + THREADS - 1) / THREADS, first = min(int(threadIdx.x) * run, k), last = min(first + run, k);
  int mine = 0;
  for (int column = first; column < last; ++column) mine += read_fresh(flags + column);
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
    if (read_fresh(flags + column)) columns[at++] = column;
    flags[column] = 0;
  }
}

// One row of x [m, k] a block -> codes int8 [m, k] = round(127 x / max|x| below the threshold), outliers 0; scales fp32 [m].
// flags int32 [k] and arrivals int32 [1]: zeros before and after. columns int32 [k], count int32 [1]. k a multiple of 8.
extern "C" __global__ void __launch_bounds__(THREADS)
llm_int8_quantize(const SCALAR* x, float threshold, signed char* codes, float* scales, int* flags, int* arrivals,
                  int* columns, int* count, int k) {
  const SCALAR* const row = x + (long long)blockIdx.x * k;
  float most = 0.0f;
  for (int column = 8 * threadIdx.x; column < k; column += 8 * THREADS) {
    const vec16<SCALAR> eight = load_vec16(row + column);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const float size = fabsf(to_float(eight.each[i]));
      if (size < threshold) most = fmaxf(most, size);
      else flags[column + i] = 1;  // whoever writes writes the same
    }
  }
  most = greatest_of_block(most);
  const float scale = most > 0.0f ? most / 127.0f : 1.0f;
  if (threadIdx.x == 0) scales[blockIdx.x] = scale;
  for (int column = 8 * threadIdx.x; column < k; column += 8 * THREADS) {
    const vec16<SCALAR> eight = load_vec16(row + column);
    EightCodes coded;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const float value = to_float(eight.each[i]);
      coded.each[i] = (signed char)(fabsf(value) < threshold ? __float2int_rn(value / scale) : 0);
    }
    *reinterpret_cast<uint2*>(codes + (long long)blockIdx.x * k + column) = coded.raw;
  }
  if (last_to_arrive(arrivals, gridDim.x)) list_columns(flags, columns, count, k);
}

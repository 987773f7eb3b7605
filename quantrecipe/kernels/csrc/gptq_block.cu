// The columns of one block of GPTQ (arXiv:2210.17323, algorithm 1) for a tile of rows, batched over layers of one shape.
// A warp takes ROWS rows; a lane holds columns lane, lane + 32, … of each. The upper triangle of the factor's block
// and the reciprocals of its diagonal lie in shared memory; the trailing update is left to a matrix product.
#include "divide.cuh"
#include "ptx.cuh"

#define COLUMNS 128
#define WIDE (COLUMNS / 32)  // columns of a lane
#define WARPS 8
#define ALL 0xffffffffu
#define FAR 1048576.0f  // steps from 0 that no code reaches; where rounded() still holds
#define ROWS 4  // of a warp, so that their chains of dependent operations overlap

// weight fp32 [B, N, C], factor fp32 [B, C, C] of which the upper triangle is read, scales and zeros fp32 [B, N, G] (zeros in
// terms of signed codes), groups int64 [C], codes int8 [B, N, C] and errors fp32 [B, N, C], both contiguous. C <= 128.
extern "C" __global__ void __launch_bounds__(32 * WARPS)
    gptq_block(const float* weight, long long weight_layer, long long weight_row, const float* factor,
               long long factor_layer, long long factor_row, const float* scales, const float* zeros,
               const long long* groups, signed char* codes, float* errors, int rows, int columns, int group_count,
               float least, float most) {
  DYNAMIC_SHARED(shared);
  float* U = reinterpret_cast<float*>(shared);
  const int lane = threadIdx.x % 32;
  const float* upper = factor + blockIdx.y * factor_layer;
  for (int i = threadIdx.x; i < columns * COLUMNS; i += blockDim.x) {
    const int row = i / COLUMNS, column = i % COLUMNS;
    U[i] = column >= row && column < columns ? upper[row * factor_row + column] : 0.0f;
  }
  __syncthreads();

  const int first = (blockIdx.x * WARPS + threadIdx.x / 32) * ROWS;
  float w[ROWS][WIDE], scale[ROWS][WIDE], zero[ROWS][WIDE], inverse[ROWS][WIDE], error[ROWS][WIDE];
  int code[ROWS][WIDE];
#pragma unroll
  for (int r = 0; r < ROWS; r++)
#pragma unroll
    for (int k = 0; k < WIDE; k++) {
      const int column = lane + 32 * k;
      const bool there = first + r < rows && column < columns;
      const long long grid = ((long long)blockIdx.y * rows + first + r) * group_count + (there ? groups[column] : 0);
      w[r][k] = there ? weight[blockIdx.y * weight_layer + (first + r) * weight_row + column] : 0.0f;
      scale[r][k] = there ? scales[grid] : 1.0f;
      zero[r][k] = there ? zeros[grid] : 0.0f;
      inverse[r][k] = Divisor(scale[r][k]).inverse;
      error[r][k] = 0.0f;
      code[r][k] = 0;
    }

#pragma unroll
  for (int k = 0; k < WIDE; k++) {  // unrolled: registers need constant indices
    for (int from = 0; from < 32; from++) {
      const int column = from + 32 * k;
      if (column >= columns) break;
      const float* u = U + column * COLUMNS + lane;
      const Divisor diagonal(U[column * COLUMNS + column]);
#pragma unroll
      for (int r = 0; r < ROWS; r++) {
        const float value = __shfl_sync(ALL, w[r][k], from), z = __shfl_sync(ALL, zero[r][k], from);
        const float s = __shfl_sync(ALL, scale[r][k], from);
        const float q = clamped(rounded(clamped(Divisor(s, __shfl_sync(ALL, inverse[r][k], from)).divide(value), -FAR, FAR)) + z, least, most);
        const float e = diagonal.divide(fmaf(z - q, s, value));
        if (lane == from) {
          code[r][k] = int(q);
          error[r][k] = e;
        }
#pragma unroll
        for (int later = k; later < WIDE; later++)  // columns that are done change too: nobody reads them
          w[r][later] = fmaf(-e, u[32 * later], w[r][later]);
      }
    }
  }

#pragma unroll
  for (int r = 0; r < ROWS; r++)
#pragma unroll
    for (int k = 0; k < WIDE; k++) {
      const int column = lane + 32 * k;
      if (first + r >= rows || column >= columns) continue;
      const long long at = ((long long)blockIdx.y * rows + first + r) * columns + column;
      codes[at] = (signed char)code[r][k];
      errors[at] = error[r][k];
    }
}

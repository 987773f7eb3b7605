// LLM.int8's other product: a few columns of x, in 16 bits, by the same columns of the int8 weight, sixteen at a time.
// Of x it takes what its codes leave: all of an outlier, whose code is 0, and the rounding of its column's other numbers.
#pragma once
#include "ptx.cuh"

template <bool FIRST, class A, class B>
struct choose {
  using type = A;
};
template <class A, class B>
struct choose<false, A, B> {
  using type = B;
};

template <class T, int TILE_ROWS, int TILE_OUTPUTS, int WORKERS>
struct OutlierTile {
  static constexpr int PITCH = 24;  // 16 columns, rows of 48 bytes: ldmatrix's rows in different banks
  unsigned char* shared;
  const T* x;                 // [m, k]
  const signed char* codes;   // [m, k]
  const float* x_scales;
  const signed char* weight;  // [n, k]
  const int* columns;
  int count, m, n, k;

  template <int COUNT, class Read>
  __device__ __forceinline__ void gather(T* to, int first, int limit, int start, Read read) const {
    for (int i = threadIdx.x; i < COUNT * 16; i += WORKERS) {
      const int row = first + i / 16, c = start + i % 16;
      const bool inside = row < limit && c < count;
      to[i / 16 * PITCH + i % 16] = from_float<T>(inside ? read(row, (long long)row * k + columns[c]) : 0.0f);
    }
  }

  // All threads of the block; what they hold in shared memory is no longer needed.
  template <int M, int N>
  __device__ __forceinline__ void add(float (&sums)[M][N][4], int tile_row, int tile_output, int warp_row, int warp_output,
                                      int lane) const {
    T* const left = reinterpret_cast<T*>(shared);
    T* const right = left + TILE_ROWS * PITCH;
    for (int start = 0; start < count; start += 16) {
      gather<TILE_ROWS>(left, tile_row, m, start,
                        [this](int row, long long at) { return to_float(x[at]) - float(codes[at]) * x_scales[row]; });
      gather<TILE_OUTPUTS>(right, tile_output, n, start, [this](int, long long at) { return float(weight[at]); });
      __syncthreads();
      unsigned a[M][4];
#pragma unroll
      for (int i = 0; i < M; ++i) ldmatrix_x4(a[i], left + (warp_row + 16 * i + lane % 16) * PITCH + 8 * (lane / 16));
#pragma unroll
      for (int j = 0; j < N; ++j) {
        unsigned b[2];
        ldmatrix_x2(b, right + (warp_output + 8 * j + lane % 8) * PITCH + 8 * (lane / 8 % 2));
#pragma unroll
        for (int i = 0; i < M; ++i) mma_16x8x16<T>(sums[i][j], a[i], b);
      }
      __syncthreads();
    }
  }
};

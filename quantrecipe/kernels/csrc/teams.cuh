// A team of threads (a power of two up to 32, or the whole block of 256) works on one group of a row, eight numbers at a time.
#pragma once
#include "divide.cuh"
#include "ptx.cuh"

#define TEAM_THREADS 256
#define CHUNK 8  // numbers that a thread takes at once: 16 bytes

struct Team {
  int size, lane;
  long long group;  // of all groups of all rows

  __device__ explicit Team(int threads)
      : size(threads),
        lane(threadIdx.x & (threads - 1)),
        group((long long)blockIdx.x * (TEAM_THREADS / threads) + threadIdx.x / threads) {}
};

// The greatest of a and of b over the team, in every thread of it. All threads of the block must come here.
__device__ __forceinline__ float2 team_max(float2 v, int size) {
  for (int reach = min(size, 32) / 2; reach > 0; reach /= 2) {
    v.x = fmaxf(v.x, __shfl_xor_sync(0xffffffffu, v.x, reach));
    v.y = fmaxf(v.y, __shfl_xor_sync(0xffffffffu, v.y, reach));
  }
  if (size > 32) {
    __shared__ float2 of_warp[TEAM_THREADS / 32];
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = v;
    __syncthreads();
    for (int i = 0; i < TEAM_THREADS / 32; i++) {
      v.x = fmaxf(v.x, of_warp[i].x);
      v.y = fmaxf(v.y, of_warp[i].y);
    }
  }
  return v;
}

// Eight numbers of which ``count`` are there, zeros after them; ``aligned``: from lies on 16 bytes and all are there.
template <class T>
__device__ __forceinline__ vec16<T> load_chunk(const T* from, int count, bool aligned) {
  if (aligned && count >= CHUNK) return load_vec16(from);
  vec16<T> chunk;
  chunk.raw = make_uint4(0, 0, 0, 0);
#pragma unroll
  for (int i = 0; i < CHUNK; i++)
    if (i < count) chunk.each[i] = from[i];
  return chunk;
}

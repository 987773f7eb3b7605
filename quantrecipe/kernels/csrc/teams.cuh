// A team of threads (a power of two up to 32, or the whole block of 256) works on one group of a row, eight numbers at a
// time. A thread holds the first HELD chunks of eight; what a longer group has beyond is read again on every visit.
#pragma once
#include "ptx.cuh"

#define TEAM_THREADS 256
#define CHUNK 8  // numbers that a thread takes at once: 16 bytes

struct Team {
  int size, lane;
  unsigned group;  // of all groups of all rows

  __device__ explicit Team(int threads)
      : size(threads),
        lane(threadIdx.x & (threads - 1)),
        group(threads == TEAM_THREADS ? blockIdx.x : (blockIdx.x * TEAM_THREADS + threadIdx.x) / unsigned(threads)) {}
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

// The numbers of a team's group; ``there``: the group exists; ``aligned``: it begins on 16 bytes.
template <class T>
struct Group {
  const T* from;
  int size;
  bool there, aligned;
  vec16<T> held[HELD];

  // Eight numbers, zeros past the end.
  __device__ __forceinline__ vec16<T> load(int chunk) const {
    const int count = size - chunk * CHUNK;
    if (aligned && count >= CHUNK) return load_vec16(from + chunk * CHUNK);
    vec16<T> found;
    found.raw = make_uint4(0, 0, 0, 0);
#pragma unroll
    for (int i = 0; i < CHUNK; i++)
      if (i < count) found.each[i] = from[chunk * CHUNK + i];
    return found;
  }

  // f(numbers, chunk) for every chunk of this thread; the first visit loads those that are held.
  template <bool FIRST, class F>
  __device__ __forceinline__ void visit(const Team& team, const F& f) {
    if (!there) return;
    const int chunks = (size + CHUNK - 1) / CHUNK;
    if (FIRST) {
#pragma unroll
      for (int i = 0; i < HELD; i++)  // all loads before the first use
        if (team.lane + i * team.size < chunks) held[i] = load(team.lane + i * team.size);
    }
#pragma unroll
    for (int i = 0; i < HELD; i++)
      if (team.lane + i * team.size < chunks) f(held[i], team.lane + i * team.size);
    for (int c = team.lane + HELD * team.size; c < chunks; c += team.size) f(load(c), c);
  }
};

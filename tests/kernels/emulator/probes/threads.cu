// Barriers, shuffles, votes, atomics; and kernels that are wrong, each in one way.
#include "ptx.cuh"

extern "C" __global__ void reversed(const int* x, int* y) {  // through shared memory
  DYNAMIC_SHARED(shared);
  int* held = reinterpret_cast<int*>(shared);
  const int t = threadIdx.x;
  held[t] = x[blockIdx.x * blockDim.x + t];
  __syncthreads();
  y[blockIdx.x * blockDim.x + t] = held[blockDim.x - 1 - t];
}

extern "C" __global__ void reversed_without_barrier(const int* x, int* y) {
  DYNAMIC_SHARED(shared);
  int* held = reinterpret_cast<int*>(shared);
  held[threadIdx.x] = x[threadIdx.x];
  y[threadIdx.x] = held[blockDim.x - 1 - threadIdx.x];
}

extern "C" __global__ void half_at_barrier(int* y) {
  if (threadIdx.x < blockDim.x / 2) __syncthreads();
  y[threadIdx.x] = 1;
}

extern "C" __global__ void half_in_shuffle(int* y) {
  if (threadIdx.x % 32 < 16) y[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1, 1);
}

extern "C" __global__ void divergent(int* y) {
  y[threadIdx.x] = threadIdx.x % 2 ? __shfl_xor_sync(0xffffffffu, 1, 1) : int(__ballot_sync(0xffffffffu, 1));
}

// y: 6 rows of results a thread; the block's sum of x into *total.
extern "C" __global__ void collectives(const int* x, int* y, int* total) {
  const int t = threadIdx.x, n = blockDim.x;
  const unsigned all = 0xffffffffu;
  const int mine = x[t];
  y[0 * n + t] = __shfl_xor_sync(all, mine, 5);
  y[1 * n + t] = __shfl_down_sync(all, mine, 3);
  y[2 * n + t] = __shfl_up_sync(all, mine, 7);
  y[3 * n + t] = __shfl_sync(all, mine, mine & 31);
  y[4 * n + t] = int(__ballot_sync(all, mine & 1));
  y[5 * n + t] = __shfl_down_sync(all, mine, 2, 8);
  int sum = mine;
  for (int reach = 16; reach; reach /= 2) sum += __shfl_xor_sync(all, sum, reach);
  if (t % 32 == 0) atomicAdd(total, sum);
}

extern "C" __global__ void reads_past(const int* x, int* y) { y[threadIdx.x] = x[threadIdx.x + (threadIdx.x == 31)]; }

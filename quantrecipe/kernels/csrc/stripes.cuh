// Work in equal stripes: the steps along K of all output tiles are laid end to end and cut evenly among the blocks, so
// that a matrix with few tiles still fills the device. A tile cut in two or more is summed by the block that comes last,
// in the blocks' order whatever the order of arrival: the same bits each time. Nobody waits for anybody.
#pragma once
#include "ptx.cuh"

struct Stripe {
  int steps, total, blocks, block;  // steps of one tile; of all tiles
  int at, end;                      // this block's part of all steps

  __device__ __forceinline__ Stripe(int tiles, int steps_of_tile)
      : steps(steps_of_tile), total(tiles * steps_of_tile), blocks(int(gridDim.x)), block(int(blockIdx.x)) {
    at = begin_of(block);
    end = begin_of(block + 1);
  }

  __device__ __forceinline__ int begin_of(int b) const { return int((long long)total * b / blocks); }
  __device__ __forceinline__ int owner_of(int step) const {
    return int(((long long)(step + 1) * blocks - 1) / total);
  }

  __device__ __forceinline__ bool more() const { return at < end; }
  __device__ __forceinline__ int tile() const { return at / steps; }
  __device__ __forceinline__ int first() const { return at % steps; }  // steps [first, last) of tile() are ours
  __device__ __forceinline__ int last() const { return min(first() + end - at, steps); }
  __device__ __forceinline__ void next() { at += last() - first(); }

  __device__ __forceinline__ bool whole() const { return last() - first() == steps; }
  __device__ __forceinline__ int first_owner() const { return owner_of(tile() * steps); }
  __device__ __forceinline__ int last_owner() const { return owner_of((tile() + 1) * steps - 1); }
  // A block leaves two sums at most: of the tile it enters in the middle, and of the tile it begins.
  __device__ __forceinline__ int slot_of(int b) const { return 2 * b + (b == first_owner() ? 1 : 0); }
  __device__ __forceinline__ int slot() const { return 2 * block + (first() == 0 ? 1 : 0); }
};

// True in all threads of the block that arrives last of ``expected``; what the others wrote before is then visible.
// ``arrivals`` is zero before and after.
__device__ __forceinline__ bool last_to_arrive(int* arrivals, int expected) {
  __shared__ int came;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) came = atomicAdd(arrivals, 1);
  __syncthreads();
  const bool last = came == expected - 1;
  if (last) {
    if (threadIdx.x == 0) *arrivals = 0;
    __threadfence();
  }
  __syncthreads();  // ``came`` may be written again
  return last;
}

// What another block wrote: not from this multiprocessor's L1, which may be stale.
template <class V>
__device__ __forceinline__ V read_fresh(const V* from) {
  return *static_cast<const volatile V*>(from);
}

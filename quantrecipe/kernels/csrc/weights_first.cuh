// y^T = W x^T with the weight as A of the tensor cores' product: 16 outputs by 8 rows of x, so few rows waste little, and
// packed units become A fragments in registers. A product P says how codes are read, scaled and multiplied:
//   Number     float | int, the accumulator          Output     f16 | bf16
//   WIDTH      bits of a code                        HALVES     16-byte pieces of x in a lane's 16 columns (2: 16 bits, 1: int8)
//   RowScales  what a lane needs to scale two rows   read_scales(row, column)
//   fragments(codes, h, scales, a)                   the two products' A registers of piece h
//   multiply(sum, a, b)   finish(sum, output, row)
// Tile: 32 DOWN outputs x TILE_ROWS rows; a stage holds ACROSS units of columns, one for each warp across.
#pragma once
#include "stripes.cuh"
#include "wna16_decode.cuh"

template <class P, int TILE_ROWS, int DOWN, int ACROSS, int DEPTH>
struct WeightsFirst {
  static constexpr int THREADS = 32 * DOWN * ACROSS, OUTPUTS = 32 * DOWN, PIECES = TILE_ROWS / 8;
  static constexpr int UNIT_BYTES = 128 * P::WIDTH, X_CHUNKS = 4 * P::HALVES * ACROSS;  // 16 bytes each, one row
  static constexpr int X_BYTES = 16 * X_CHUNKS * TILE_ROWS, W_BYTES = 2 * DOWN * ACROSS * UNIT_BYTES;
  static constexpr int STAGE_BYTES = X_BYTES + W_BYTES, PITCH = OUTPUTS + 4;  // of sums in shared memory: no conflicts
  using Number = typename P::Number;

  const P& product;
  const unsigned char* x;  // [m, x_chunks] pieces of 16 bytes
  const unsigned char* packed;
  unsigned char* shared;
  int m, n, units, x_chunks;

  // Two lanes' rows that a 16-byte read takes together lie in different banks.
  static __device__ __forceinline__ int swizzled(int row, int chunk) {
    if constexpr (P::HALVES == 2) return chunk ^ (row & 1);
    else return ACROSS % 2 ? chunk : chunk ^ ((row & 1) * 4);
  }

  __device__ __forceinline__ int steps() const { return (units + ACROSS - 1) / ACROSS; }
  __device__ __forceinline__ int output_tiles() const { return (n + OUTPUTS - 1) / OUTPUTS; }
  __device__ __forceinline__ int tiles() const { return output_tiles() * ((m + TILE_ROWS - 1) / TILE_ROWS); }

  __device__ __forceinline__ void fetch(int tile, int step, int last, int stage) const {
    if (step < last) {
      unsigned char* const at = shared + stage * STAGE_BYTES;
      const int row = tile / output_tiles() * TILE_ROWS, first_chunk = step * X_CHUNKS;
      for (int i = threadIdx.x; i < X_CHUNKS * TILE_ROWS; i += THREADS) {
        const int r = i / X_CHUNKS, chunk = i % X_CHUNKS;
        const bool inside = row + r < m && first_chunk + chunk < x_chunks;
        const long long from = inside ? (long long)(row + r) * x_chunks + first_chunk + chunk : 0;
        cp_async_16(at + 16 * (r * X_CHUNKS + swizzled(r, chunk)), x + 16 * from, inside);
      }
      constexpr int pieces = ACROSS * UNIT_BYTES / 16;  // a run of units of 16 outputs is one piece of memory
      const int sixteen = tile % output_tiles() * (2 * DOWN);
      for (int i = threadIdx.x; i < 2 * DOWN * pieces; i += THREADS) {
        const int which = sixteen + i / pieces, piece = i % pieces;
        const bool inside = 16 * which < n && step * ACROSS + piece * 16 / UNIT_BYTES < units;
        const long long unit = inside ? (long long)which * units + step * ACROSS : 0;
        cp_async_16(at + X_BYTES + 16 * i, packed + unit * UNIT_BYTES + (inside ? 16 * piece : 0), inside);
      }
    }
    cp_async_commit();
  }

  __device__ __forceinline__ void multiply_stage(Number (&sum)[2][PIECES][4], const typename P::RowScales (&scales)[2],
                                                 int stage, int across, int down, int lane) const {
    const unsigned char* const at = shared + stage * STAGE_BYTES;
    Codes<P::WIDTH> codes[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      codes[r] = read_codes<P::WIDTH, false>(at + X_BYTES + ((2 * down + r) * ACROSS + across) * UNIT_BYTES, lane);
    }
#pragma unroll
    for (int h = 0; h < P::HALVES; ++h) {
      unsigned a[2][2][4];
#pragma unroll
      for (int r = 0; r < 2; ++r) P::fragments(codes[r], h, scales[r], a[r]);
      const int chunk = swizzled(lane / 4, (across * 4 + lane % 4) * P::HALVES + h);
#pragma unroll
      for (int piece = 0; piece < PIECES; ++piece) {
        const uint4 v = *reinterpret_cast<const uint4*>(at + 16 * ((8 * piece + lane / 4) * X_CHUNKS + chunk));
        const unsigned b[2][2] = {{v.x, v.y}, {v.z, v.w}};
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          P::multiply(sum[0][piece], a[0][i], b[i]);
          P::multiply(sum[1][piece], a[1][i], b[i]);
        }
      }
    }
  }

  // Scales of the unit that this warp takes in a step.
  __device__ __forceinline__ void read_scales(typename P::RowScales (&scales)[2], int tile, int step, int across, int down,
                                              int lane) const {
    const int row = tile % output_tiles() * OUTPUTS + 32 * down + lane / 4;
    const int column = 64 * min(step * ACROSS + across, units - 1) + 16 * (lane % 4);
#pragma unroll
    for (int r = 0; r < 2; ++r) scales[r] = product.read_scales(row + 16 * r, column);
  }

  __device__ __forceinline__ void multiply_steps(Number (&sum)[2][PIECES][4], int tile, int first, int last) const {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, across = warp / DOWN, down = warp % DOWN;
#pragma unroll
    for (int stage = 0; stage < DEPTH - 1; ++stage) fetch(tile, first + stage, last, stage);
    typename P::RowScales scales[2], coming[2];
    read_scales(coming, tile, first, across, down, lane);
    for (int step = first, stage = 0; step < last; ++step, stage = stage + 1 == DEPTH ? 0 : stage + 1) {
      scales[0] = coming[0], scales[1] = coming[1];
      cp_async_wait<DEPTH - 2>();
      __syncthreads();  // the stage has come for all, and all are done with the one that is fetched next
      fetch(tile, step + DEPTH - 1, last, stage == 0 ? DEPTH - 1 : stage - 1);
      if (step + 1 < last) read_scales(coming, tile, step + 1, across, down, lane);
      multiply_stage(sum, scales, stage, across, down, lane);
    }
    cp_async_wait<0>();
    __syncthreads();
  }

  // The warps' sums, added over the warps across, as [TILE_ROWS, PITCH] in shared memory.
  __device__ __forceinline__ void gather(const Number (&sum)[2][PIECES][4]) const {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, down = warp % DOWN;
    Number* const gathered = reinterpret_cast<Number*>(shared);
#pragma unroll 1
    for (int turn = 0; turn < ACROSS; ++turn) {
      if (warp / DOWN == turn) {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
#pragma unroll
          for (int piece = 0; piece < PIECES; ++piece) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
              const int row = 8 * piece + 2 * (lane % 4) + i % 2, output = 32 * down + 16 * r + lane / 4 + 8 * (i / 2);
              Number* const to = gathered + row * PITCH + output;
              *to = turn ? *to + sum[r][piece][i] : sum[r][piece][i];
            }
          }
        }
      }
      __syncthreads();
    }
  }

  __device__ __forceinline__ void write_one(int tile, int row, int output, Number value, typename P::Output* y) const {
    const int to_row = tile / output_tiles() * TILE_ROWS + row, to_output = tile % output_tiles() * OUTPUTS + output;
    if (to_row < m && to_output < n) y[(long long)to_row * n + to_output] = product.finish(value, to_output, to_row);
  }

  // From shared memory to y, or, of a tile that is cut, to ``partial`` and by the last block to y.
  __device__ __forceinline__ void write(const Stripe& stripe, typename P::Output* y, Number* partial, int* arrivals) const {
    const Number* const gathered = reinterpret_cast<const Number*>(shared);
    constexpr int all = TILE_ROWS * OUTPUTS;
    const int tile = stripe.tile();
    for (int i = threadIdx.x; i < all; i += THREADS) {
      const Number value = gathered[i / OUTPUTS * PITCH + i % OUTPUTS];
      if (stripe.whole()) write_one(tile, i / OUTPUTS, i % OUTPUTS, value, y);
      else partial[(long long)stripe.slot() * all + i] = value;
    }
    if (stripe.whole()) return;
    const int from = stripe.first_owner(), to = stripe.last_owner();
    if (!last_to_arrive(arrivals + tile, to - from + 1)) return;
    for (int i = threadIdx.x; i < all; i += THREADS) {
      Number value = 0;
      for (int b = from; b <= to; ++b) value += read_fresh(partial + (long long)stripe.slot_of(b) * all + i);
      write_one(tile, i / OUTPUTS, i % OUTPUTS, value, y);
    }
  }

  __device__ __forceinline__ void run(typename P::Output* y, Number* partial, int* arrivals) const {
    for (Stripe stripe(tiles(), steps()); stripe.more(); stripe.next()) {
      Number sum[2][PIECES][4] = {};
      multiply_steps(sum, stripe.tile(), stripe.first(), stripe.last());
      gather(sum);
      write(stripe, y, partial, arrivals);
      __syncthreads();  // before shared memory is filled again
    }
  }
};

// Scales, zero points and packed codes of a weight [N, K] in one pass: a group stays in registers between its range and
// its codes. BITS: 2-6 and 8 integer, or FP8 (e4m3).
// The numbers are the native backend's (plugins/native/qparams.py, methods/fp8.py).
#include "divide.cuh"
#include "teams.cuh"

#define BYTES BITS  // of eight codes
#if FP8
#define STEPS 448.0f
#else
#define STEPS float((1 << BITS) - 1)
#endif
#define LEAST float(-(1 << (BITS - 1)))
#define MOST float((1 << (BITS - 1)) - 1)

// What a scale of 0 becomes: the type's distance from 1 to the next number.
__device__ __forceinline__ f16 epsilon(f16) { return from_float<f16>(0.0009765625f); }
__device__ __forceinline__ bf16 epsilon(bf16) { return from_float<bf16>(0.0078125f); }

// Eight codes, the first in the lowest bits. zero: signed.
__device__ __forceinline__ unsigned long long codes_of(const vec16<SCALAR>& chunk, const Divisor& scale, float zero) {
  unsigned four[2] = {0, 0};
#if FP8
#pragma unroll
  for (int i = 0; i < CHUNK; i += 2)
    four[i / 4] |= unsigned(f32_to_e4m3x2(scale.nearly(to_float(chunk.each[i])), scale.nearly(to_float(chunk.each[i + 1]))))
                   << (8 * (i % 4));
  return four[0] | (unsigned long long)four[1] << 32;
#else
  const float low = LEAST - zero, high = MOST - zero;  // whole: clamping before rounding is the same, and rounding last
#pragma unroll                                         // leaves the code in the bits of the sum
  for (int i = 0; i < CHUNK; i++)
    four[i / 4] += rounded_bits(clamped(scale.nearly(to_float(chunk.each[i])), low, high)) << (BITS * (i % 4));
  // Each term is too great by ROUNDER_BITS and too small by the offset to unsigned codes (at 8 bits: 128, taken off again).
  const unsigned ones = 1u | 1u << BITS | 1u << (2 * BITS) | 1u << (3 * BITS);
  const unsigned correction = (unsigned(int(zero - LEAST)) - ROUNDER_BITS) * ones;
  const unsigned mask = BITS == 8 ? 0xffffffffu : (1u << (4 * BITS % 32)) - 1u;
  const unsigned to_signed = BITS == 8 ? 0x80808080u : 0u;
  const unsigned first = ((four[0] + correction) & mask) ^ to_signed, second = ((four[1] + correction) & mask) ^ to_signed;
  return first | (unsigned long long)second << (4 * BITS);
#endif
}

// One chunk's codes as bytes; ``whole``: all of them, aligned.
__device__ __forceinline__ void store_codes(unsigned char* to, unsigned long long codes, bool whole, int bytes) {
  if (whole && BYTES == 8) {
    *reinterpret_cast<uint2*>(to) = make_uint2(unsigned(codes), unsigned(codes >> 32));
  } else if (whole && BYTES == 4) {
    *reinterpret_cast<unsigned*>(to) = unsigned(codes);
  } else if (whole && BYTES % 2 == 0) {
#pragma unroll
    for (int i = 0; i < BYTES / 2; i++) reinterpret_cast<unsigned short*>(to)[i] = (unsigned short)(codes >> (16 * i));
  } else {
#pragma unroll
    for (int i = 0; i < 8; i++)
      if (i < bytes) to[i] = (unsigned char)(codes >> (8 * i));
  }
}

// zeros: null where symmetric; in unsigned terms. aligned: rows of weight lie on 16 bytes. row_bytes: of packed.
extern "C" __global__ void __launch_bounds__(TEAM_THREADS, 4)
    quantize_pack(const SCALAR* weight, unsigned char* packed, SCALAR* scales, SCALAR* zeros, int rows, int columns,
                  int groups, int team_size, int aligned, int row_bytes) {
  const Team team(team_size);
  const unsigned row = team.group / unsigned(groups), group = team.group % unsigned(groups);
  Group<SCALAR> mine;
  mine.size = columns / groups;
  mine.there = row < rows;
  mine.aligned = aligned;
  mine.from = weight + (mine.there ? (long long)row * columns + (long long)group * mine.size : 0);

  const pair_t<SCALAR> none{0};
  pair_t<SCALAR> lows = none, highs = none;
  mine.visit<true>(team, [&](const vec16<SCALAR>& chunk, int) {
    const unsigned words[4] = {chunk.raw.x, chunk.raw.y, chunk.raw.z, chunk.raw.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
      lows = min2(lows, pair_t<SCALAR>{words[i]});
      highs = max2(highs, pair_t<SCALAR>{words[i]});
    }
  });
  const float2 low = to_float2(lows), high = to_float2(highs);
  const float2 range = team_max(make_float2(-fminf(low.x, low.y), fmaxf(high.x, high.y)), team.size);
  if (!mine.there) return;

#if FP8
  const float extent = fmaxf(range.x, range.y);
#else
  const float extent = zeros ? range.y + range.x : 2.0f * fmaxf(range.x, range.y);
#endif
  SCALAR stored = from_float<SCALAR>(Divisor(STEPS).divide(extent));
  if (to_float(stored) == 0.0f) stored = epsilon(stored);
  const Divisor scale(to_float(stored));
  const float zero = zeros ? clamped(rounded(clamped(LEAST + scale.nearly(range.x), LEAST, MOST)), LEAST, MOST) : 0.0f;
  if (team.lane == 0) {
    scales[team.group] = stored;
    if (zeros) zeros[team.group] = from_float<SCALAR>(zero - LEAST);
  }

  const int before = int(group) * (mine.size / CHUNK), last = int(group) == groups - 1 ? (mine.size - 1) / CHUNK : -1;
  unsigned char* to = packed + (long long)row * row_bytes + (long long)before * BYTES;
  const bool pairs = BYTES != 8 || (row_bytes % 8 == 0);
  mine.visit<false>(team, [&](const vec16<SCALAR>& chunk, int c) {
    const int count = min(mine.size - c * CHUNK, CHUNK), left = row_bytes - (before + c) * BYTES;
    unsigned long long codes = codes_of(chunk, scale, zero);
    if (count < CHUNK) codes &= (1ull << (BITS * count)) - 1;
    const bool whole = pairs && (c == last ? left == BYTES : true);  // the last clears what is left of the row's word
    store_codes(to + c * BYTES, codes, whole, c == last ? left : BYTES);
  });
}

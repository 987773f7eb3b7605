// Codes and fp32 scales of inputs [M, K], one scale a token or a group of a token's channels, divided by SmoothQuant's
// factors on the way (arXiv:2211.10438, equation 3). FP8: e4m3, s = max|x| / 448; else int8, s = max|x| / 127.5.
#include "divide.cuh"
#include "teams.cuh"

#if FP8
#define STEPS 448.0f
#else
#define STEPS 127.5f
#endif

// x over the factor of each channel; ``from``: the chunk's first factor, of which ``count`` are there.
__device__ __forceinline__ void smooth_chunk(float (&x)[CHUNK], const float* from, int count, bool aligned) {
  float factors[CHUNK];
  if (aligned && count >= CHUNK) {
    const vec16<float> first = load_vec16(from), second = load_vec16(from + 4);
#pragma unroll
    for (int i = 0; i < 4; i++) factors[i] = first.each[i], factors[i + 4] = second.each[i];
  } else {
#pragma unroll
    for (int i = 0; i < CHUNK; i++) factors[i] = i < count ? from[i] : 1.0f;
  }
#pragma unroll
  for (int i = 0; i < CHUNK; i++) x[i] = __fdiv_rn(x[i], factors[i]);
}

// Eight codes of quotients that are rounded as IEEE division.
__device__ __forceinline__ uint2 codes_of(const float (&x)[CHUNK], const Divisor& scale) {
  unsigned four[2] = {0, 0};
#if FP8
#pragma unroll
  for (int i = 0; i < CHUNK; i += 2)
    four[i / 4] |= unsigned(f32_to_e4m3x2(scale.divide(x[i]), scale.divide(x[i + 1]))) << (8 * (i % 4));
  return make_uint2(four[0], four[1]);
#else
#pragma unroll
  for (int i = 0; i < CHUNK; i++)  // code + 128 + ROUNDER_BITS each, so that no term borrows from the next
    four[i / 4] += rounded_bits(clamped(scale.divide(x[i]), -128.0f, 127.0f)) << (8 * (i % 4));
  const unsigned correction = (128u - ROUNDER_BITS) * 0x01010101u;
  return make_uint2((four[0] + correction) ^ 0x80808080u, (four[1] + correction) ^ 0x80808080u);
#endif
}

// smooth: fp32 [K] or null. aligned: rows of x (and smooth) lie on 16 bytes, rows of q on 8.
extern "C" __global__ void __launch_bounds__(TEAM_THREADS, 4)
    quantize_activation(const SCALAR* x, const float* smooth, unsigned char* q, float* scales, int rows, int columns,
                        int groups, int team_size, int aligned) {
  const Team team(team_size);
  const unsigned row = team.group / unsigned(groups), group = team.group % unsigned(groups);
  Group<SCALAR> mine;
  mine.size = columns / groups;
  mine.there = row < rows;
  mine.aligned = aligned;
  const long long start = mine.there ? (long long)row * columns + (long long)group * mine.size : 0;
  mine.from = x + start;
  const float* factors = smooth ? smooth + group * mine.size : nullptr;

  auto values_of = [&](const vec16<SCALAR>& chunk, int c, float (&values)[CHUNK]) {
#pragma unroll
    for (int i = 0; i < CHUNK; i++) values[i] = to_float(chunk.each[i]);
    if (factors) smooth_chunk(values, factors + c * CHUNK, mine.size - c * CHUNK, aligned);
  };
  float2 largest = make_float2(0.0f, 0.0f);
  mine.visit<true>(team, [&](const vec16<SCALAR>& chunk, int c) {
    float values[CHUNK];
    values_of(chunk, c, values);
#pragma unroll
    for (int i = 0; i < CHUNK; i++) largest.x = fmaxf(largest.x, fabsf(values[i]));
  });
  largest = team_max(largest, team.size);
  if (!mine.there) return;

  float stored = Divisor(STEPS).divide(largest.x);
  if (stored == 0.0f) stored = 1.1920929e-07f;  // fp32 eps, as compressed-tensors
  if (team.lane == 0) scales[team.group] = stored;
  const Divisor scale(stored);
  mine.visit<false>(team, [&](const vec16<SCALAR>& chunk, int c) {
    float values[CHUNK];
    values_of(chunk, c, values);
    const uint2 codes = codes_of(values, scale);
    unsigned char* to = q + start + c * CHUNK;
    const int count = min(mine.size - c * CHUNK, CHUNK);
    if (aligned && count == CHUNK) {
      *reinterpret_cast<uint2*>(to) = codes;
      return;
    }
#pragma unroll
    for (int i = 0; i < CHUNK; i++)
      if (i < count) to[i] = (unsigned char)((i < 4 ? codes.x : codes.y) >> (8 * (i % 4)));
  });
}

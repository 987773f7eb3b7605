// Codes and fp32 scales of inputs [M, K], one scale a token or a group of a token's channels, divided by SmoothQuant's
// factors on the way (arXiv:2211.10438, equation 3). FP8: e4m3, s = max|x| / 448; else int8, s = max|x| / 127.5.
#include "teams.cuh"

#if FP8
#define STEPS 448.0f
#else
#define STEPS 127.5f
#endif

// smooth: fp32 [K] or null. aligned: rows of x (and smooth) lie on 16 bytes, rows of q on 8.
extern "C" __global__ void __launch_bounds__(TEAM_THREADS, 3)
    quantize_activation(const SCALAR* x, const float* smooth, unsigned char* q, float* scales, int rows, int columns,
                        int groups, int team_size, int aligned) {
  const Team team(team_size);
  const long long row = team.group / groups;
  const int group = int(team.group % groups), size = columns / groups, chunks = (size + CHUNK - 1) / CHUNK;
  const bool mine = row < rows;
  const long long start = mine ? row * columns + (long long)group * size : 0;
  const SCALAR* from = x + start;
  const float* factors = smooth ? smooth + (long long)group * size : nullptr;

  auto smoothed = [&](const vec16<SCALAR>& chunk, int c, int i) {
    const float value = to_float(chunk.each[i]);
    return factors && c * CHUNK + i < size ? __fdiv_rn(value, factors[c * CHUNK + i]) : value;
  };
  vec16<SCALAR> held[HELD];
  float2 largest = make_float2(0.0f, 0.0f);
  auto widen = [&](const vec16<SCALAR>& chunk, int c) {
#pragma unroll
    for (int i = 0; i < CHUNK; i++) largest.x = fmaxf(largest.x, fabsf(smoothed(chunk, c, i)));
  };
#pragma unroll
  for (int i = 0; i < HELD; i++) {
    const int c = team.lane + i * team.size;
    if (mine && c < chunks) widen(held[i] = load_chunk(from + c * CHUNK, size - c * CHUNK, aligned), c);
  }
  for (int c = team.lane + HELD * team.size; mine && c < chunks; c += team.size)
    widen(load_chunk(from + c * CHUNK, size - c * CHUNK, aligned), c);
  largest = team_max(largest, team.size);
  if (!mine) return;

  float scale = __fdiv_rn(largest.x, STEPS);
  if (scale == 0.0f) scale = 1.1920929e-07f;  // fp32 eps, as compressed-tensors
  if (team.lane == 0) scales[team.group] = scale;
  const Divisor divisor(scale);

  auto emit = [&](const vec16<SCALAR>& chunk, int c) {
    unsigned words[2] = {0, 0};
#pragma unroll
    for (int i = 0; i < CHUNK; i++) {
      const float steps = divisor.divide(smoothed(chunk, c, i));
#if FP8
      const unsigned code = f32_to_e4m3(steps);
#else
      const unsigned code = unsigned(__float2int_rn(clamped(steps, -128.0f, 127.0f))) & 0xffu;
#endif
      words[i / 4] |= code << (8 * (i % 4));
    }
    unsigned char* to = q + start + c * CHUNK;
    const int count = min(size - c * CHUNK, CHUNK);
    if (aligned && count == CHUNK) {
      *reinterpret_cast<uint2*>(to) = make_uint2(words[0], words[1]);
    } else {
#pragma unroll
      for (int i = 0; i < CHUNK; i++)
        if (i < count) to[i] = (unsigned char)(words[i / 4] >> (8 * (i % 4)));
    }
  };
#pragma unroll
  for (int i = 0; i < HELD; i++) {
    const int c = team.lane + i * team.size;
    if (c < chunks) emit(held[i], c);
  }
  for (int c = team.lane + HELD * team.size; c < chunks; c += team.size)
    emit(load_chunk(from + c * CHUNK, size - c * CHUNK, aligned), c);
}

// Scales, zero points and packed codes of a weight [N, K] in one pass: a group stays in registers between its range and
// its codes. BITS: 2-6 and 8 integer, or FP8 (e4m3). HELD: chunks that a thread keeps; longer groups are read again.
// The numbers are the native backend's (plugins/native/qparams.py, methods/fp8.py).
#include "teams.cuh"

#if FP8
#define STEPS 448.0f
#define BYTES 8
#else
#define STEPS float((1 << BITS) - 1)
#define BYTES BITS  // of eight codes
#endif
#define LEAST float(-(1 << (BITS - 1)))
#define MOST float((1 << (BITS - 1)) - 1)

// What a scale of 0 becomes: the type's distance from 1 to the next number.
__device__ __forceinline__ f16 epsilon(f16) { return from_float<f16>(0.0009765625f); }
__device__ __forceinline__ bf16 epsilon(bf16) { return from_float<bf16>(0.0078125f); }

struct Grid {
  Divisor scale;
  float zero;

  __device__ __forceinline__ unsigned long long code(float w) const {
#if FP8
    return f32_to_e4m3(scale.divide(w));
#else
    const float q = clamped(rintf(scale.divide(w)) + zero, LEAST, MOST);
    const int signed_code = __float2int_rn(q);
    return BITS == 8 ? signed_code & 0xff : unsigned(signed_code + (1 << (BITS - 1)));
#endif
  }
};

// One chunk's codes as bytes; the last of a row also clears what is left of the row's last word.
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
extern "C" __global__ void __launch_bounds__(TEAM_THREADS, 3)
    quantize_pack(const SCALAR* weight, unsigned char* packed, SCALAR* scales, SCALAR* zeros, int rows, int columns,
                  int groups, int team_size, int aligned, int row_bytes) {
  const Team team(team_size);
  const long long row = team.group / groups;
  const int group = int(team.group % groups), size = columns / groups, chunks = (size + CHUNK - 1) / CHUNK;
  const bool mine = row < rows;
  const SCALAR* from = weight + (mine ? row * columns + (long long)group * size : 0);

  vec16<SCALAR> held[HELD];
  float2 range = make_float2(0.0f, 0.0f);  // -least, greatest
  auto widen = [&](const vec16<SCALAR>& chunk) {
#pragma unroll
    for (int i = 0; i < CHUNK; i++) {
      const float w = to_float(chunk.each[i]);
      range = make_float2(fmaxf(range.x, -w), fmaxf(range.y, w));
    }
  };
#pragma unroll
  for (int i = 0; i < HELD; i++) {
    const int c = team.lane + i * team.size;
    if (mine && c < chunks) widen(held[i] = load_chunk(from + c * CHUNK, size - c * CHUNK, aligned));
  }
  for (int c = team.lane + HELD * team.size; mine && c < chunks; c += team.size)
    widen(load_chunk(from + c * CHUNK, size - c * CHUNK, aligned));
  range = team_max(range, team.size);
  if (!mine) return;

#if FP8
  const float wanted = __fdiv_rn(fmaxf(range.x, range.y), STEPS);
#else
  const float wanted = __fdiv_rn(zeros ? range.y + range.x : 2.0f * fmaxf(range.x, range.y), STEPS);
#endif
  SCALAR scale = from_float<SCALAR>(wanted);
  if (to_float(scale) == 0.0f) scale = epsilon(scale);
  Grid grid{Divisor(to_float(scale)), 0.0f};
  if (zeros) grid.zero = clamped(rintf(LEAST + grid.scale.divide(range.x)), LEAST, MOST);
  if (team.lane == 0) {
    scales[team.group] = scale;
    if (zeros) zeros[team.group] = from_float<SCALAR>(grid.zero - LEAST);
  }

  unsigned char* to = packed + row * row_bytes + (long long)(group * (size / CHUNK)) * BYTES;
  auto emit = [&](const vec16<SCALAR>& chunk, int c) {
    const int count = min(size - c * CHUNK, CHUNK);
    const bool last = group == groups - 1 && c == chunks - 1;
    unsigned long long codes = 0;
#pragma unroll
    for (int i = 0; i < CHUNK; i++)
      if (i < count) codes |= grid.code(to_float(chunk.each[i])) << (BYTES * i);
    const int left = row_bytes - (group * (size / CHUNK) + c) * BYTES;
    store_codes(to + c * BYTES, codes, left >= BYTES && !(last && left > BYTES) && (BYTES != 8 || row_bytes % 8 == 0),
                last ? left : BYTES);
  };
#pragma unroll
  for (int i = 0; i < HELD; i++) {
    const int c = team.lane + i * team.size;
    if (c < chunks) emit(held[i], c);
  }
  for (int c = team.lane + HELD * team.size; c < chunks; c += team.size)
    emit(load_chunk(from + c * CHUNK, size - c * CHUNK, aligned), c);
}

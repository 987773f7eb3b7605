// Unsigned codes of 2, 3, 4, 5, 6 and 8 bits to pairs of 16-bit numbers, in mma.m16n8k16's A fragments.
//
// A unit is 16 rows x 64 columns of a weight, 128 WIDTH bytes. Lane (g = lane / 4, t = lane % 4) owns rows g and g + 8 and
// columns 16 t ... 16 t + 15: 32 codes, WIDTH words. Product j (of four) takes columns 4 j ... 4 j + 3 of that run; its
// register p is row g + 8 (p % 2), columns 4 j + 2 (p / 2) and the next. The order of columns inside a unit is free, since
// both operands follow it; this one makes sixteen bytes of x a B fragment and gives a lane one scale a row.
// Widths are planes, one after the other: 3 = 2 + 1 bits, 5 = 4 + 1, 6 = 4 + 2. Pair (j, p) of a plane:
//   4 bits: word j, bits 4 p and 16 + 4 p;  2 bits: word j / 2, bits 8 (j % 2) + 2 p and + 16;  1 bit: bits 4 j + p and + 16;
//   8 bits: word 2 j + p % 2, bytes 2 (p / 2) and the next.
#pragma once
#include "ptx.cuh"

template <int WIDTH>
struct Codes {
  unsigned word[WIDTH];
};

template <bool STREAMED, class V>
__device__ __forceinline__ V read_plane(const unsigned char* from) {
  if constexpr (STREAMED) return load_streaming(reinterpret_cast<const V*>(from));
  else return *reinterpret_cast<const V*>(from);
}

// A lane's codes of a unit, from global (STREAMED: read once) or shared memory.
template <int WIDTH, bool STREAMED>
__device__ __forceinline__ Codes<WIDTH> read_codes(const unsigned char* unit, int lane) {
  Codes<WIDTH> codes;
  if constexpr (WIDTH >= 4) {
    const uint4 v = read_plane<STREAMED, uint4>(unit + 16 * lane);
    codes.word[0] = v.x, codes.word[1] = v.y, codes.word[2] = v.z, codes.word[3] = v.w;
  }
  if constexpr (WIDTH == 8) {
    const uint4 v = read_plane<STREAMED, uint4>(unit + 512 + 16 * lane);
    codes.word[4] = v.x, codes.word[5] = v.y, codes.word[6] = v.z, codes.word[7] = v.w;
  }
  if constexpr (WIDTH == 2 || WIDTH == 3 || WIDTH == 6) {
    constexpr int at = WIDTH == 6 ? 4 : 0;
    const uint2 v = read_plane<STREAMED, uint2>(unit + 128 * at + 8 * lane);
    codes.word[at] = v.x, codes.word[at + 1] = v.y;
  }
  if constexpr (WIDTH == 3 || WIDTH == 5) {
    codes.word[WIDTH - 1] = read_plane<STREAMED, unsigned>(unit + 128 * (WIDTH - 1) + 4 * lane);
  }
  return codes;
}

// 2^MANTISSA has an ulp of 1: a code put into its low bits is a whole number plus 2^MANTISSA.
template <class T>
struct Format;
template <>
struct Format<f16> {
  static constexpr unsigned base = 0x64006400u;
  static constexpr int mantissa = 10, bias = 15;
};
template <>
struct Format<bf16> {
  static constexpr unsigned base = 0x43004300u;
  static constexpr int mantissa = 7, bias = 127;
};

// -(2^MANTISSA + offset 2^shift) 2^-shift and 2^-shift, in both halves.
template <class T>
__device__ __forceinline__ pair_t<T> minus_start(int offset, int shift) {
  return pair_t<T>{(0x8000u | unsigned(Format<T>::mantissa - shift + Format<T>::bias) << Format<T>::mantissa |
                    unsigned(offset) << shift) * 0x10001u};
}

template <class T>
__device__ __forceinline__ pair_t<T> to_the_right(int shift) {
  return pair_t<T>{(unsigned(Format<T>::bias - shift) << Format<T>::mantissa) * 0x10001u};
}

__device__ __forceinline__ unsigned moved(unsigned word, int right) {
  return right >= 0 ? word >> right : word << -right;
}

__device__ __forceinline__ unsigned or_masked(unsigned word, unsigned mask, unsigned other) {
  return lop3<0xea>(word, mask, other);  // (word & mask) | other, one instruction
}

// Bytes 2 h and 2 h + 1 of a word, less ``offset``, as bf16: by way of float, whose ulp at 2^23 is 1. Exact to nine bits.
__device__ __forceinline__ bf16x2 bf16_of_bytes(unsigned word, int h, float offset) {
  const float low = __uint_as_float(__byte_perm(word, 0x4b000000u, 0x7550u + 2u * h)) - (8388608.0f + offset);
  const float high = __uint_as_float(__byte_perm(word, 0x4b000000u, 0x7551u + 2u * h)) - (8388608.0f + offset);
  return bf16x2{__byte_perm(__float_as_uint(low), __float_as_uint(high), 0x7632u)};
}

// Register p of product j: code - OFFSET, exactly.
template <class T, int WIDTH, int OFFSET>
__device__ __forceinline__ pair_t<T> code_pair(const Codes<WIDTH>& codes, int j, int p) {
  constexpr bool half = Format<T>::mantissa == 10;
  if constexpr (WIDTH == 8 && !half) {
    return bf16_of_bytes(codes.word[2 * j + p % 2], p / 2, float(OFFSET));
  } else {
    const int crumb = 8 * (j % 2) + 2 * p;
    unsigned raw = 0;
    int shift = 0;  // of the code inside its half; what bits are free decides
    if constexpr (WIDTH == 8) {
      raw = __byte_perm(codes.word[2 * j + p % 2], 0x64646464u, p / 2 ? 0x4342u : 0x4140u);
    } else if constexpr (WIDTH == 4) {
      shift = half ? 4 * (p % 2) : 0;
      raw = or_masked(codes.word[j] >> (4 * p - shift), 0x000f000fu << shift, Format<T>::base);
    } else if constexpr (WIDTH == 2) {
      shift = half ? crumb % 8 : crumb % 4;
      raw = or_masked(codes.word[j / 2] >> (crumb - shift), 0x00030003u << shift, Format<T>::base);
    } else if constexpr (WIDTH == 3) {
      raw = or_masked(codes.word[j / 2] >> crumb, 0x00030003u, Format<T>::base);
      raw = or_masked(moved(codes.word[2], 4 * j + p - 2), 0x00040004u, raw);
    } else if constexpr (WIDTH == 5) {
      raw = or_masked(codes.word[j] >> (4 * p), 0x000f000fu, Format<T>::base);
      raw = or_masked(moved(codes.word[4], 4 * j + p - 4), 0x00100010u, raw);
    } else {
      raw = or_masked(codes.word[j] >> (4 * p), 0x000f000fu, Format<T>::base);
      raw = or_masked(moved(codes.word[4 + j / 2], crumb - 4), 0x00300030u, raw);
    }
    const pair_t<T> less = minus_start<T>(OFFSET, shift);
    return shift ? fma2(pair_t<T>{raw}, to_the_right<T>(shift), less) : add2(pair_t<T>{raw}, less);
  }
}

// scale (code - zero) for one row of a lane: scale and zero point in both halves. Symmetric: zero = 2^(WIDTH - 1).
template <class T>
struct RowScale {
  pair_t<T> scale, zero;
};

template <class T, int WIDTH, bool HAS_ZERO>
__device__ __forceinline__ unsigned weight_pair(const Codes<WIDTH>& codes, int j, int p, const RowScale<T>& row) {
  if constexpr (HAS_ZERO) return mul2(sub2(code_pair<T, WIDTH, 0>(codes, j, p), row.zero), row.scale).bits;
  else return mul2(code_pair<T, WIDTH, 1 << (WIDTH - 1)>(codes, j, p), row.scale).bits;
}

// Where scales and zero points [N, G] lie, with strides: [G, N] in memory reads whole sectors.
template <class T>
struct Scales {
  const T* scale;
  const T* zero;
  int rows, groups, row_stride, group_stride;
  unsigned reciprocal;  // ceil(2^32 / group size); 0: one group

  __device__ __forceinline__ long long at(int row, int column) const {
    const int group = min(int(__umulhi(unsigned(column), reciprocal)), groups - 1);  // columns past the end: the last
    return (long long)min(row, rows - 1) * row_stride + (long long)group * group_stride;
  }

  template <bool HAS_ZERO>
  __device__ __forceinline__ RowScale<T> read(int row, int column) const {
    const long long i = at(row, column);
    RowScale<T> found;
    found.scale.bits = scale[i].bits * 0x10001u;
    found.zero.bits = HAS_ZERO ? zero[i].bits * 0x10001u : 0u;
    return found;
  }

  // Two columns that may lie in different groups.
  template <bool HAS_ZERO>
  __device__ __forceinline__ RowScale<T> read_two(int row, int column) const {
    const long long i = at(row, column), j = at(row, column + 1);
    RowScale<T> found;
    found.scale.bits = scale[i].bits | (unsigned(scale[j].bits) << 16);
    found.zero.bits = HAS_ZERO ? zero[i].bits | (unsigned(zero[j].bits) << 16) : 0u;
    return found;
  }
};

// 16-bit numbers and pairs of them, without cuda_fp16.h: NVRTC from pip has no such header.
#pragma once

struct f16 {
  unsigned short bits;
};
struct bf16 {
  unsigned short bits;
};
struct f16x2 {  // the first number in the low half
  unsigned bits;
};
struct bf16x2 {
  unsigned bits;
};

template <class T>
struct pair_of;
template <>
struct pair_of<f16> {
  using type = f16x2;
};
template <>
struct pair_of<bf16> {
  using type = bf16x2;
};
template <class T>
using pair_t = typename pair_of<T>::type;

// Sixteen bytes as eight 16-bit numbers: what one vectorized access moves.
template <class T>
union vec16 {
  uint4 raw;
  T each[16 / sizeof(T)];
  __device__ vec16() {}
};

template <class T>
__device__ __forceinline__ vec16<T> load_vec16(const T* from) {
  vec16<T> value;
  value.raw = *reinterpret_cast<const uint4*>(from);
  return value;
}

template <class T>
__device__ __forceinline__ void store_vec16(T* to, const vec16<T>& value) {
  *reinterpret_cast<uint4*>(to) = value.raw;
}

// Float to e4m3 (1-4-3, no infinity), nearest even, saturating at 448; NaN stays NaN. For devices without the instruction.
__device__ __forceinline__ unsigned char f32_to_e4m3_in_integers(float x) {
  const unsigned bits = __float_as_uint(x), size = bits & 0x7fffffffu;
  const unsigned sign = (bits >> 24) & 0x80u;
  if (size > 0x7f800000u) return (unsigned char)(sign | 0x7fu);
  if (size >= 0x43e80000u) return (unsigned char)(sign | 0x7eu);  // 464, half-way past 448
  if (size < 0x3c800000u) {                                       // below 2^-6: steps of 2^-9, by adding 2^14
    const float shifted = __uint_as_float(size) + 16384.0f;
    return (unsigned char)(sign | (__float_as_uint(shifted) - 0x46800000u));
  }
  const unsigned rounded = size + 0x7ffffu + ((size >> 20) & 1u);
  return (unsigned char)(sign | ((rounded >> 20) - (120u << 3)));
}

// CUDA C++ compiled by g++ and run on the host: the language. Every thread of a block is a fiber (fiber.h); blocks follow one another.
// What it shows: wrong indices, fragment layouts, missing barriers and waits (order is shuffled, shared memory poisoned).
// What it cannot show: speed, races within one instruction, what the compiler makes of the source.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "fiber.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__
#define __constant__ static
#define __shared__ static
#define __align__(n) alignas(n)
#define __launch_bounds__(...)
#define DYNAMIC_SHARED(name) unsigned char* name = emulated::dynamic_shared()

struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

template <class To, class From>
inline To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From), "");
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}
inline float __uint_as_float(unsigned x) { return bits_as<float>(x); }
inline unsigned __float_as_uint(float x) { return bits_as<unsigned>(x); }
inline float __int_as_float(int x) { return bits_as<float>(x); }
inline int __float_as_int(float x) { return bits_as<int>(x); }

inline int __float2int_rn(float x) {  // saturating; NaN gives 0, as cvt.rni.s32.f32
  return std::isnan(x) ? 0 : x >= 2147483648.0f ? INT32_MAX : x < -2147483648.0f ? INT32_MIN : int(std::nearbyint(x));
}
inline float __int2float_rn(int x) { return float(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }
inline long long min(long long a, long long b) { return a < b ? a : b; }
inline long long max(long long a, long long b) { return a > b ? a : b; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }

inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
  const std::uint64_t bytes = a | std::uint64_t(b) << 32;
  unsigned result = 0;
  for (int i = 0; i < 4; i++) {
    const unsigned pick = selector >> (4 * i) & 0xf;
    unsigned byte = unsigned(bytes >> (8 * (pick & 7)) & 0xff);
    if (pick & 8) byte = byte & 0x80 ? 0xff : 0;
    result |= byte << (8 * i);
  }
  return result;
}

inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(std::uint64_t(a) * b >> 32); }

inline int __dp4a(int a, int b, int c) {
  for (int i = 0; i < 4; i++) c += int(std::int8_t(a >> (8 * i))) * int(std::int8_t(b >> (8 * i)));
  return c;
}

template <class T>
inline T __ldg(const T* p) { return *p; }
template <class T>
inline T __ldcs(const T* p) { return *p; }
inline void __threadfence() {}
template <class T>
inline T atomicAdd(T* p, T value) { T old = *p; *p = old + value; return old; }
template <class T>
inline T atomicMax(T* p, T value) { T old = *p; if (value > old) *p = value; return old; }
template <class T>
inline T atomicMin(T* p, T value) { T old = *p; if (value < old) *p = value; return old; }
template <class T>
inline T atomicExch(T* p, T value) { T old = *p; *p = value; return old; }
template <class T>
inline T atomicCAS(T* p, T expected, T value) { T old = *p; if (old == expected) *p = value; return old; }
inline unsigned atomicInc(unsigned* p, unsigned limit) { unsigned old = *p; *p = old >= limit ? 0 : old + 1; return old; }

inline void __syncthreads() { emulated::block_barrier(); }
inline int __syncthreads_or(int predicate) { return emulated::block_any(predicate); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { emulated::exchange(mask, "__syncwarp", 0); }

// A shuffle from a lane outside the mask is undefined, hence an error here; the width is the warp's.
template <class T>
inline T shuffled(unsigned mask, const char* what, T value, int from) {
  const auto& slots = emulated::exchange(mask, what, value);
  const int source = from < 0 || from > 31 ? emulated::lane() : from;
  if (!(mask >> source & 1)) emulated::fail("a shuffle reads a lane outside its mask");
  return slots.template get<T>(source);
}
template <class T>
inline T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  const int base = emulated::lane() & ~(width - 1);
  return shuffled(mask, "__shfl_sync", value, base + (source & (width - 1)));
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int bits, int = 32) {
  return shuffled(mask, "__shfl_xor_sync", value, emulated::lane() ^ bits);
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T value, int by, int width = 32) {
  const int place = emulated::lane() & (width - 1);
  return shuffled(mask, "__shfl_down_sync", value, emulated::lane() + (place + by < width ? by : 0));
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T value, int by, int width = 32) {
  const int place = emulated::lane() & (width - 1);
  return shuffled(mask, "__shfl_up_sync", value, emulated::lane() - (place >= by ? by : 0));
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  const auto& slots = emulated::exchange(mask, "__ballot_sync", predicate);
  unsigned votes = 0;
  for (int i = 0; i < 32; i++)
    if (mask >> i & 1 && slots.get<int>(i)) votes |= 1u << i;
  return votes;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return !__ballot_sync(mask, !predicate); }

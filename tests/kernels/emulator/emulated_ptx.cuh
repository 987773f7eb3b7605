// The twin of csrc/ptx.cuh for g++, written from the PTX ISA: fragments of mma (9.7.14.5), ldmatrix, cp.async, conversions.
#pragma once

#include "types.cuh"

inline float to_float(f16 x) { return float(bits_as<_Float16>(x.bits)); }
inline float to_float(bf16 x) { return __uint_as_float(unsigned(x.bits) << 16); }

inline unsigned short f16_bits(double x) { return bits_as<unsigned short>(_Float16(x)); }
inline unsigned short bf16_bits(float x) {
  const unsigned bits = __float_as_uint(x);
  if (std::isnan(x)) return 0x7fff;
  return (unsigned short)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

template <class T>
T from_float(float x);
template <>
inline f16 from_float<f16>(float x) { return {f16_bits(x)}; }
template <>
inline bf16 from_float<bf16>(float x) { return {bf16_bits(x)}; }

template <class T>
inline pair_t<T> from_float2(float low, float high) {
  return {from_float<T>(low).bits | unsigned(from_float<T>(high).bits) << 16};
}

inline float2 to_float2(f16x2 x) { return {to_float(f16{(unsigned short)x.bits}), to_float(f16{(unsigned short)(x.bits >> 16)})}; }
inline float2 to_float2(bf16x2 x) { return {to_float(bf16{(unsigned short)x.bits}), to_float(bf16{(unsigned short)(x.bits >> 16)})}; }

// f16 products are exact in double; of a bf16 sum the double's rounding comes before float's, 2^-52 relative.
inline f16x2 round_pair(double low, double high, f16x2) { return {f16_bits(low) | unsigned(f16_bits(high)) << 16}; }
inline bf16x2 round_pair(double low, double high, bf16x2) { return {bf16_bits(float(low)) | unsigned(bf16_bits(float(high))) << 16}; }

template <class P>
inline P fma2(P a, P b, P c) {
  const float2 x = to_float2(a), y = to_float2(b), z = to_float2(c);
  return round_pair(double(x.x) * y.x + z.x, double(x.y) * y.y + z.y, P{});
}
template <class P>
inline P mul2(P a, P b) {
  const float2 x = to_float2(a), y = to_float2(b);
  return round_pair(double(x.x) * y.x, double(x.y) * y.y, P{});
}
template <class P>
inline P add2(P a, P b) {
  const float2 x = to_float2(a), y = to_float2(b);
  return round_pair(double(x.x) + y.x, double(x.y) + y.y, P{});
}
template <class P>
inline P sub2(P a, P b) {
  const float2 x = to_float2(a), y = to_float2(b);
  return round_pair(double(x.x) - y.x, double(x.y) - y.y, P{});
}

template <class P>
inline P min2(P a, P b) {
  const float2 x = to_float2(a), y = to_float2(b);
  return round_pair(std::fmin(x.x, y.x), std::fmin(x.y, y.y), P{});
}
template <class P>
inline P max2(P a, P b) {
  const float2 x = to_float2(a), y = to_float2(b);
  return round_pair(std::fmax(x.x, y.x), std::fmax(x.y, y.y), P{});
}

struct Fragments {
  unsigned a[4], b[2];
};

// Sum over k of A[row, k] B[k, column] from the lanes' registers; one 16-bit element is half a register.
template <class T>
inline void mma_16x8x16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  const auto& slots = emulated::exchange(~0u, "mma_16x8x16", Fragments{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}});
  auto half = [](unsigned word, int i) { return double(to_float(T{(unsigned short)(word >> (16 * i))})); };
  auto at_a = [&](int row, int k) {  // a0 a1 | a2 a3 (row + 8) | a4 a5 (k + 8) | a6 a7 (both)
    const auto held = slots.template get<Fragments>(row % 8 * 4 + k % 8 / 2);
    return half(held.a[(row >= 8) + 2 * (k >= 8)], k % 2);
  };
  auto at_b = [&](int k, int column) {
    return half(slots.template get<Fragments>(column * 4 + k % 8 / 2).b[k >= 8], k % 2);
  };
  for (int i = 0; i < 4; i++) {
    const int row = emulated::lane() / 4 + 8 * (i >= 2), column = emulated::lane() % 4 * 2 + i % 2;
    double sum = d[i];
    for (int k = 0; k < 16; k++) sum += at_a(row, k) * at_b(k, column);
    d[i] = float(sum);
  }
}

inline void mma_16x8x32_s8(int (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  const auto& slots = emulated::exchange(~0u, "mma_16x8x32_s8", Fragments{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}});
  auto byte = [](unsigned word, int i) { return int(std::int8_t(word >> (8 * i))); };
  auto at_a = [&](int row, int k) {
    const auto held = slots.get<Fragments>(row % 8 * 4 + k % 16 / 4);
    return byte(held.a[(row >= 8) + 2 * (k >= 16)], k % 4);
  };
  auto at_b = [&](int k, int column) { return byte(slots.get<Fragments>(column * 4 + k % 16 / 4).b[k >= 16], k % 4); };
  for (int i = 0; i < 4; i++) {
    const int row = emulated::lane() / 4 + 8 * (i >= 2), column = emulated::lane() % 4 * 2 + i % 2;
    for (int k = 0; k < 32; k++) d[i] += at_a(row, k) * at_b(k, column);
  }
}

inline void must_be_aligned(const void* p, const char* what) {
  if (reinterpret_cast<std::uintptr_t>(p) % 16) emulated::fail(std::string(what) + ": an address is not a multiple of 16");
}

// Lane t of tile i receives row t / 4, elements 2 (t % 4) and the next; transposed: column t / 4, those rows.
template <int TILES, bool TRANSPOSED>
inline void ldmatrix(unsigned (&r)[TILES], const void* row, const char* what) {
  if (emulated::lane() < 8 * TILES) must_be_aligned(row, what);
  const auto& slots = emulated::exchange(~0u, what, row);
  const int t = emulated::lane();
  for (int i = 0; i < TILES; i++) {
    unsigned short pair[2];
    for (int j = 0; j < 2; j++) {
      const int from = TRANSPOSED ? t % 4 * 2 + j : t / 4, element = TRANSPOSED ? t / 4 : t % 4 * 2 + j;
      pair[j] = slots.template get<const unsigned short*>(8 * i + from)[element];
    }
    r[i] = pair[0] | unsigned(pair[1]) << 16;
  }
  emulated::exchange(~0u, what, 0);  // nobody writes on before all have read
}
inline void ldmatrix_x4(unsigned (&r)[4], const void* row) { ldmatrix<4, false>(r, row, "ldmatrix_x4"); }
inline void ldmatrix_x2(unsigned (&r)[2], const void* row) { ldmatrix<2, false>(r, row, "ldmatrix_x2"); }
inline void ldmatrix_x4_trans(unsigned (&r)[4], const void* row) { ldmatrix<4, true>(r, row, "ldmatrix_x4_trans"); }
inline void ldmatrix_x2_trans(unsigned (&r)[2], const void* row) { ldmatrix<2, true>(r, row, "ldmatrix_x2_trans"); }

inline void cp_async_16(void* shared, const void* global, bool valid = true) {
  must_be_aligned(shared, "cp_async_16");
  if (valid) must_be_aligned(global, "cp_async_16");
  emulated::self().open.push_back({shared, global, valid});
}

inline void cp_async_commit() {
  auto& fiber = emulated::self();
  fiber.groups.push_back(std::move(fiber.open));
  fiber.open.clear();
}

template <int N>
inline void cp_async_wait() {
  auto& groups = emulated::self().groups;
  while (groups.size() > N) {
    for (const auto& copy : groups.front()) {
      if (copy.valid) std::memcpy(copy.to, copy.from, 16);
      else std::memset(copy.to, 0, 16);
    }
    groups.erase(groups.begin());
  }
}

template <unsigned TABLE>
inline unsigned lop3(unsigned a, unsigned b, unsigned c) {
  unsigned d = 0;
  for (int i = 0; i < 8; i++)
    if (TABLE >> i & 1) d |= (i & 4 ? a : ~a) & (i & 2 ? b : ~b) & (i & 1 ? c : ~c);
  return d;
}

template <class T>
inline T load_streaming(const T* from) { return *from; }

inline unsigned short f32_to_e4m3x2(float low, float high) {
  return (unsigned short)(f32_to_e4m3_in_integers(low) | f32_to_e4m3_in_integers(high) << 8);
}

// Every line of inline PTX, behind functions; tests/kernels/emulator has a twin of each for g++. sm_80 and newer.
#pragma once

#ifdef EMULATED
#include "emulated_ptx.cuh"
#else
#include "types.cuh"

#define DYNAMIC_SHARED(name) extern __shared__ __align__(128) unsigned char name[]

__device__ __forceinline__ float to_float(f16 x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
}

__device__ __forceinline__ float to_float(bf16 x) { return __uint_as_float(unsigned(x.bits) << 16); }

template <class T>
__device__ __forceinline__ T from_float(float x);  // to nearest, ties to even; beyond the range: infinity

template <>
__device__ __forceinline__ f16 from_float<f16>(float x) {
  f16 y;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
}

template <>
__device__ __forceinline__ bf16 from_float<bf16>(float x) {
  bf16 y;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
}

template <class T>
__device__ __forceinline__ pair_t<T> from_float2(float low, float high);

template <>
__device__ __forceinline__ f16x2 from_float2<f16>(float low, float high) {
  f16x2 y;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(y.bits) : "f"(high), "f"(low));
  return y;
}

template <>
__device__ __forceinline__ bf16x2 from_float2<bf16>(float low, float high) {
  bf16x2 y;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y.bits) : "f"(high), "f"(low));
  return y;
}

__device__ __forceinline__ float2 to_float2(f16x2 x) {
  return make_float2(to_float(f16{(unsigned short)x.bits}), to_float(f16{(unsigned short)(x.bits >> 16)}));
}

__device__ __forceinline__ float2 to_float2(bf16x2 x) {
  return make_float2(__uint_as_float(x.bits << 16), __uint_as_float(x.bits & 0xffff0000u));
}

// Pairs; one rounding each. bf16 has only fma before sm_90, so products add -0 and sums multiply by 1.
__device__ __forceinline__ f16x2 fma2(f16x2 a, f16x2 b, f16x2 c) {
  f16x2 d;
  asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(d.bits) : "r"(a.bits), "r"(b.bits), "r"(c.bits));
  return d;
}

__device__ __forceinline__ f16x2 mul2(f16x2 a, f16x2 b) {
  f16x2 d;
  asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(d.bits) : "r"(a.bits), "r"(b.bits));
  return d;
}

__device__ __forceinline__ f16x2 add2(f16x2 a, f16x2 b) {
  f16x2 d;
  asm("add.rn.f16x2 %0, %1, %2;" : "=r"(d.bits) : "r"(a.bits), "r"(b.bits));
  return d;
}

__device__ __forceinline__ f16x2 sub2(f16x2 a, f16x2 b) {
  f16x2 d;
  asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(d.bits) : "r"(a.bits), "r"(b.bits));
  return d;
}

__device__ __forceinline__ bf16x2 fma2(bf16x2 a, bf16x2 b, bf16x2 c) {
  bf16x2 d;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d.bits) : "r"(a.bits), "r"(b.bits), "r"(c.bits));
  return d;
}

__device__ __forceinline__ bf16x2 mul2(bf16x2 a, bf16x2 b) { return fma2(a, b, bf16x2{0x80008000u}); }
__device__ __forceinline__ bf16x2 add2(bf16x2 a, bf16x2 b) { return fma2(a, bf16x2{0x3f803f80u}, b); }
__device__ __forceinline__ bf16x2 sub2(bf16x2 a, bf16x2 b) { return fma2(b, bf16x2{0xbf80bf80u}, a); }

// Least and greatest of each half; a NaN loses against a number.
#define EXTREME_OF_PAIRS(name, pair, instruction)                                                \
  __device__ __forceinline__ pair name(pair a, pair b) {                                         \
    pair d;                                                                                      \
    asm(instruction " %0, %1, %2;" : "=r"(d.bits) : "r"(a.bits), "r"(b.bits));                   \
    return d;                                                                                    \
  }
EXTREME_OF_PAIRS(min2, f16x2, "min.f16x2")
EXTREME_OF_PAIRS(max2, f16x2, "max.f16x2")
EXTREME_OF_PAIRS(min2, bf16x2, "min.bf16x2")
EXTREME_OF_PAIRS(max2, bf16x2, "max.bf16x2")

// d += a b for one warp: A 16 x 16 by rows, B 16 x 8 by columns, D 16 x 8 fp32. Fragments: PTX ISA, mma.m16n8k16.
template <class T>
__device__ __forceinline__ void mma_16x8x16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]);

template <>
__device__ __forceinline__ void mma_16x8x16<f16>(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

template <>
__device__ __forceinline__ void mma_16x8x16<bf16>(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// d += a b for one warp: A 16 x 32 int8 by rows, B 32 x 8 int8 by columns, D 16 x 8 int32. PTX ISA, mma.m16n8k32.
__device__ __forceinline__ void mma_16x8x32_s8(int (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ __forceinline__ unsigned shared_address(const void* p) {
  return unsigned(__cvta_generic_to_shared(p));
}

// 8 x 8 tiles of 16-bit numbers; lanes 8 i … 8 i + 7 give the rows (16 bytes, aligned) of tile i.
__device__ __forceinline__ void ldmatrix_x4(unsigned (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}

__device__ __forceinline__ void ldmatrix_x2(unsigned (&r)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
               : "=r"(r[0]), "=r"(r[1]) : "r"(shared_address(row)) : "memory");
}

__device__ __forceinline__ void ldmatrix_x4_trans(unsigned (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}

__device__ __forceinline__ void ldmatrix_x2_trans(unsigned (&r)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
               : "=r"(r[0]), "=r"(r[1]) : "r"(shared_address(row)) : "memory");
}

// Sixteen bytes from global to shared memory, both aligned; not ``valid``: sixteen zero bytes, nothing is read.
__device__ __forceinline__ void cp_async_16(void* shared, const void* global, bool valid = true) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :: "r"(shared_address(shared)), "l"(global), "r"(valid ? 16 : 0) : "memory");
}

__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Until all but the newest N groups of this thread have arrived; other threads see them after a barrier.
template <int N>
__device__ __forceinline__ void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" :: "n"(N) : "memory");
}

template <unsigned TABLE>
__device__ __forceinline__ unsigned lop3(unsigned a, unsigned b, unsigned c) {
  unsigned d;
  asm("lop3.b32 %0, %1, %2, %3, %4;" : "=r"(d) : "r"(a), "r"(b), "r"(c), "n"(TABLE));
  return d;
}

// Weights, which no kernel writes and which are read once: past L1. Not volatile, so that loads may be moved up.
__device__ __forceinline__ uint4 load_streaming(const uint4* from) {
  uint4 v;
  asm("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0,%1,%2,%3}, [%4];"
      : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(from));
  return v;
}

__device__ __forceinline__ uint2 load_streaming(const uint2* from) {
  uint2 v;
  asm("ld.global.nc.L1::no_allocate.L2::128B.v2.u32 {%0,%1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(from));
  return v;
}

__device__ __forceinline__ unsigned load_streaming(const unsigned* from) {
  unsigned v;
  asm("ld.global.nc.L1::no_allocate.L2::128B.u32 %0, [%1];" : "=r"(v) : "l"(from));
  return v;
}

// Two floats to e4m3 (1-4-3, no infinity), nearest even, saturating at 448, the first in the low byte; NaN stays NaN.
__device__ __forceinline__ unsigned short f32_to_e4m3x2(float low, float high) {
#if __CUDA_ARCH__ >= 890
  unsigned short y;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(y) : "f"(high), "f"(low));
  return y;
#else
  return (unsigned short)(f32_to_e4m3_in_integers(low) | f32_to_e4m3_in_integers(high) << 8);
#endif
}
#endif

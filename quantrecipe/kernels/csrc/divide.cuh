// Quotients and codes without division or conversion instructions, whose rates are a quarter or less of a multiplication's.
#pragma once
#include "ptx.cuh"

// a / b rounded as IEEE division: 1 / b comes once for many a. After one refinement the quotient is within an ulp, and
// exact where it has few bits; after the second it is the nearest float (Markstein, IBM J. Res. Dev. 34(1), 1990,
// "Computation of elementary functions on the IBM RISC System/6000"). Remainders must be normal numbers: operands are
// scaled by 2^80 or 2^-80 where b lies outside 2^-60 ... 2^60, and |a / b| must stay below 2^47.
struct Divisor {
  float b, inverse, factor;

  __device__ explicit Divisor(float divisor) : Divisor(divisor, 0.0f) { inverse = __frcp_rn(b); }

  __device__ Divisor(float divisor, float known) : inverse(known) {  // ``known``: inverse of an equal divisor
    const float size = fabsf(divisor);
    factor = size < 8.7e-19f ? 1.2089258e24f : size > 1.1e18f ? 8.271806e-25f : 1.0f;
    b = divisor * factor;
  }

  __device__ __forceinline__ float refined(float a, float q) const { return fmaf(fmaf(-q, b, a), inverse, q); }

  // Right to rounding to whole numbers or to e4m3 where a and b are 16-bit floats: their quotients are ties of such a
  // rounding or 2^-13 of themselves away from one.
  __device__ __forceinline__ float nearly(float a) const {
    const float scaled = a * factor;
    return refined(scaled, scaled * inverse);
  }

  __device__ __forceinline__ float divide(float a) const {
    const float scaled = a * factor;
    return refined(scaled, refined(scaled, scaled * inverse));
  }
};

__device__ __forceinline__ float clamped(float x, float low, float high) { return fminf(fmaxf(x, low), high); }

#define ROUNDER 12582912.0f  // 1.5 2^23: floats around it are the whole numbers, its own bits end in zeros
#define ROUNDER_BITS 0x4b400000u

// Whole numbers q = round(x), ties to even, |q| < 2^22, as bits: q = rounded_bits(x) - ROUNDER_BITS.
__device__ __forceinline__ unsigned rounded_bits(float x) { return __float_as_uint(__fadd_rn(x, ROUNDER)); }
__device__ __forceinline__ float rounded(float x) { return __fsub_rn(__fadd_rn(x, ROUNDER), ROUNDER); }

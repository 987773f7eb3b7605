#pragma once

// a / b rounded as IEEE division, in multiplications: 1 / b comes once for many a. After one refinement the quotient
// is within an ulp, after the second it is the nearest (Markstein, IBM J. Res. Dev. 34(1), 1990,
// "Computation of elementary functions on the IBM RISC System/6000").
struct Divisor {
  float b, inverse;
  bool plain;

  __device__ explicit Divisor(float divisor) : Divisor(divisor, __frcp_rn(divisor)) {}

  __device__ Divisor(float divisor, float reciprocal) : b(divisor), inverse(reciprocal) {
    const float size = fabsf(divisor);
    plain = size > 8.7e-19f && size < 1.1e18f;  // 2^-60 … 2^60: remainders are normal unless a < 2^-102
  }

  __device__ __forceinline__ float divide(float a) const {
    if (!plain) return __fdiv_rn(a, b);
    float q = a * inverse;
    q = fmaf(fmaf(-q, b, a), inverse, q);
    return fmaf(fmaf(-q, b, a), inverse, q);
  }
};

__device__ __forceinline__ float clamped(float x, float low, float high) { return fminf(fmaxf(x, low), high); }

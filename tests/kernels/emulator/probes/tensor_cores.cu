// Fragments are filled by the index formulas of the PTX ISA (figures for mma.m16n8k16 and m16n8k32), element by element.
#include "ptx.cuh"

extern "C" __global__ void product_16(const SCALAR* A, const SCALAR* B, float* D) {
  const int group = threadIdx.x >> 2, thread = threadIdx.x % 4;
  unsigned a[4] = {0, 0, 0, 0}, b[2] = {0, 0};
  float d[4];
  for (int i = 0; i < 8; i++) {
    const int row = (i < 2 || (i >= 4 && i < 6)) ? group : group + 8;
    const int col = thread * 2 + (i & 1) + (i < 4 ? 0 : 8);
    a[i / 2] |= unsigned(A[row * 16 + col].bits) << (16 * (i % 2));
  }
  for (int i = 0; i < 4; i++) {
    const int row = thread * 2 + (i & 1) + (i < 2 ? 0 : 8);
    b[i / 2] |= unsigned(B[row * 8 + group].bits) << (16 * (i % 2));
  }
  for (int i = 0; i < 4; i++) d[i] = D[(i < 2 ? group : group + 8) * 8 + thread * 2 + (i & 1)];
  mma_16x8x16<SCALAR>(d, a, b);
  for (int i = 0; i < 4; i++) D[(i < 2 ? group : group + 8) * 8 + thread * 2 + (i & 1)] = d[i];
}

extern "C" __global__ void product_32(const signed char* A, const signed char* B, int* D) {
  const int group = threadIdx.x >> 2, thread = threadIdx.x % 4;
  unsigned a[4] = {0, 0, 0, 0}, b[2] = {0, 0};
  int d[4];
  for (int i = 0; i < 16; i++) {
    const int row = (i < 4 || (i >= 8 && i < 12)) ? group : group + 8;
    const int col = thread * 4 + (i & 3) + (i < 8 ? 0 : 16);
    a[i / 4] |= unsigned((unsigned char)A[row * 32 + col]) << (8 * (i % 4));
  }
  for (int i = 0; i < 8; i++) {
    const int row = thread * 4 + (i & 3) + (i < 4 ? 0 : 16);
    b[i / 4] |= unsigned((unsigned char)B[row * 8 + group]) << (8 * (i % 4));
  }
  for (int i = 0; i < 4; i++) d[i] = D[(i < 2 ? group : group + 8) * 8 + thread * 2 + (i & 1)];
  mma_16x8x32_s8(d, a, b);
  for (int i = 0; i < 4; i++) D[(i < 2 ? group : group + 8) * 8 + thread * 2 + (i & 1)] = d[i];
}

// The way kernels do it: cp.async into shared memory, ldmatrix, mma. A [16, 16], B [16, 8] both by rows.
extern "C" __global__ void product_through_shared(const SCALAR* A, const SCALAR* B, float* D, int waits) {
  DYNAMIC_SHARED(shared);
  SCALAR* sA = reinterpret_cast<SCALAR*>(shared);
  SCALAR* sB = sA + 256;
  const int t = threadIdx.x;
  cp_async_16(sA + t * 8, A + t * 8);
  if (t < 16) cp_async_16(sB + t * 8, B + t * 8);
  cp_async_commit();
  if (waits) cp_async_wait<0>();
  __syncthreads();
  unsigned a[4], b[2];
  float d[4] = {0, 0, 0, 0};
  ldmatrix_x4(a, sA + (t % 16) * 16 + (t / 16) * 8);
  ldmatrix_x2_trans(b, sB + (t % 16) * 8);
  mma_16x8x16<SCALAR>(d, a, b);
  for (int i = 0; i < 4; i++) D[(i < 2 ? t / 4 : t / 4 + 8) * 8 + t % 4 * 2 + (i & 1)] = d[i];
}

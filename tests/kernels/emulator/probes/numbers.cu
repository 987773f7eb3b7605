// Conversions, one number or pair a thread.
#include "ptx.cuh"

extern "C" __global__ void round_trip(const float* x, SCALAR* y, float* back, SCALAR* pair, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  y[i] = from_float<SCALAR>(x[i]);
  back[i] = to_float(y[i]);
  const pair_t<SCALAR> both = from_float2<SCALAR>(x[i], -x[i]);
  const float2 floats = to_float2(both);
  pair[2 * i] = from_float<SCALAR>(floats.x);
  pair[2 * i + 1] = from_float<SCALAR>(floats.y);
}

// rows: a b + c, a b, a + b, a - b, the lesser, the greater
extern "C" __global__ void arithmetic(const SCALAR* a, const SCALAR* b, const SCALAR* c, SCALAR* y, int pairs) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= pairs) return;
  using Pair = pair_t<SCALAR>;
  const Pair x = reinterpret_cast<const Pair*>(a)[i], z = reinterpret_cast<const Pair*>(b)[i];
  Pair* out = reinterpret_cast<Pair*>(y);
  out[i] = fma2(x, z, reinterpret_cast<const Pair*>(c)[i]);
  out[pairs + i] = mul2(x, z);
  out[2 * pairs + i] = add2(x, z);
  out[3 * pairs + i] = sub2(x, z);
  out[4 * pairs + i] = min2(x, z);
  out[5 * pairs + i] = max2(x, z);
}

extern "C" __global__ void to_e4m3(const float* x, unsigned short* y, int pairs) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < pairs) y[i] = f32_to_e4m3x2(x[2 * i], x[2 * i + 1]);
}

// y: lop3 of two tables, then __byte_perm
extern "C" __global__ void bits(const unsigned* a, const unsigned* b, const unsigned* c, unsigned* y, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  y[i] = lop3<(0xf0 & 0xcc) | 0xaa>(a[i], b[i], c[i]);
  y[n + i] = lop3<(0xf0 ^ 0xcc) & 0xaa>(a[i], b[i], c[i]);
  y[2 * n + i] = __byte_perm(a[i], b[i], 0x5140);
  y[3 * n + i] = unsigned(__dp4a(int(a[i]), int(b[i]), int(c[i])));
}

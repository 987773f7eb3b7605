// All quotients by one thread.
#include "ptx.cuh"
#include "divide.cuh"

extern "C" __global__ void divide(const float* a, const float* b, float* quotients, const int* count) {
  for (int i = 0; i < *count; i++) quotients[i] = Divisor(b[i]).divide(a[i]);
}

// Functions of some channels at a time.

#pragma once

#include "lanes.h"

namespace {

// 2^x by the bits of a whole number in the exponent, and a polynomial of what is left: with a relative error of 3e-7,
// or of 8e-5 if it is to be quick, a twentieth of what rounding to bfloat16 changes at most.
template <bool quick>
inline Floats exp2(Floats x) {
#ifdef __AVX512DQ__  // what is left is in [0, 1), of infinity 0
  const Floats f = (Floats)_mm512_reduce_ps((__m512)x, 9);
  Floats p;
  if constexpr (quick) {
    p = f * 7.8024522e-2f + 2.2606717e-1f;
    p = p * f + 6.9583353e-1f;
    p = p * f + 9.9992522e-1f;
  } else {
    p = f * 1.8775767e-3f + 8.9893403e-3f;
    p = p * f + 5.5826318e-2f;
    p = p * f + 2.4015362e-1f;
    p = p * f + 6.9315307e-1f;
    p = p * f + 9.9999993e-1f;
  }
  return (Floats)_mm512_scalef_ps((__m512)p, (__m512)x);
#else  // in [-1/2, 1/2]
  x = x < -126.f ? Floats{} - 126.f : x;
  x = x > 126.f ? Floats{} + 126.f : x;
  const Floats shifted = x + 12582912.f;  // 1.5 * 2^23 moves the whole number to the lowest bits
  const Floats f = x - (shifted - 12582912.f);
  Floats p;
  if constexpr (quick) {
    p = f * 5.5171669e-2f + 2.4261113e-1f;
    p = p * f + 6.9326099e-1f;
    p = p * f + 9.9992807e-1f;
  } else {
    p = f * 1.3399114e-3f + 9.6184395e-3f;
    p = p * f + 5.5503324e-2f;
    p = p * f + 2.4022710e-1f;
    p = p * f + 6.9314720e-1f;
    p = p * f + 1.f;
  }
  return (Floats)((Ints)p + ((Ints)shifted << 23));
#endif
}

// With a relative error of 6e-5 where that is quicker than a division.
inline Floats quick_inverse(Floats x) {
#ifdef __AVX512F__
  return (Floats)_mm512_rcp14_ps((__m512)x);
#else
  return 1.f / x;
#endif
}

template <bool quick>
inline Floats sigmoid(Floats x) {
  x *= -1.44269504f;
  if constexpr (quick) return quick_inverse(1.f + exp2<true>(x));
#ifdef __AVX512DQ__  // half of a division's time
  x = (Floats)_mm512_min_ps(_mm512_set1_ps(126.f), (__m512)x);  // Newton's step below makes nothing of 1 / infinity
  const Floats one_more = 1.f + exp2<false>(x), guess = (Floats)_mm512_rcp14_ps((__m512)one_more);
  return guess * (2.f - one_more * guess);
#else
  return 1.f / (1.f + exp2<false>(x));
#endif
}

// With a relative error of 1e-6, or, quick, of 1.4e-4: of a quotient of polynomials in [-4.8, 4.8], beyond that of 1.
template <bool quick>
inline Floats tanh(Floats x) {
  if constexpr (!quick) return 2.f * sigmoid<false>(2.f * x) - 1.f;
  x = x < -4.8f ? Floats{} - 4.8f : x;
  x = x > 4.8f ? Floats{} + 4.8f : x;
  const Floats u = x * x;
  const Floats above = x * ((u * 6.8991069e-4f + 1.0302798e-1f) * u + 9.9995884e-1f);
  return above * quick_inverse((u * 1.3009030e-2f + 4.3610035e-1f) * u + 1.f);
}

}  // namespace

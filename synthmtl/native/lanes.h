// Features with their channels last, some channels at a time: in float32, from and to float32 or bfloat16.

#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace {

using at::Tensor;
using Half = uint16_t;  // the bits of a bfloat16

#if defined(__AVX512F__)
constexpr int64_t LANES = 16;
#elif defined(__AVX__)
constexpr int64_t LANES = 8;
#else
constexpr int64_t LANES = 4;
#endif
typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));

inline Floats load(const float* from) {
  Floats floats;
  std::memcpy(&floats, from, sizeof floats);
  return floats;
}

inline Floats load(const Half* from) {
#ifdef __AVX512F__  // GCC makes two halves of the conversion
  const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  return (Floats)_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16);
#else
  Halves halves;
  std::memcpy(&halves, from, sizeof halves);
  return (Floats)(__builtin_convertvector(halves, Words) << 16);
#endif
}

inline void store(float* to, Floats floats) { std::memcpy(to, &floats, sizeof floats); }

// Rounded to the nearest, ties to even.
inline void store(Half* to, Floats floats) {
#ifdef __AVX512BF16__
  const __m256bh halves = _mm512_cvtneps_pbh((__m512)floats);
#else
  Words words = (Words)floats;
  words += 0x7fff + ((words >> 16) & 1);
  words = floats == floats ? words : (Words{} + 0x7fc00000);  // rounding could make infinity of not a number
  const Halves halves = __builtin_convertvector(words >> 16, Halves);
#endif
  std::memcpy(to, &halves, sizeof halves);
}

template <class T>
T* values(const Tensor& tensor) {
  return static_cast<T*>(tensor.data_ptr());
}

inline Tensor channels_last(const Tensor& features) { return features.contiguous(at::MemoryFormat::ChannelsLast); }

inline Tensor like(const Tensor& features) { return at::empty_like(features, at::MemoryFormat::ChannelsLast); }

// f(row, thread) of every row.
template <class F>
void for_rows(int64_t rows, int64_t channels, F f) {
  at::parallel_for(0, rows, std::max<int64_t>(1, 16384 / channels), [&](int64_t begin, int64_t end) {
    const int64_t thread = at::get_thread_num();
    for (int64_t row = begin; row < end; ++row) f(row, thread);
  });
}

}  // namespace

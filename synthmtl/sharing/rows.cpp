// Leaky units of 1x1 kernels over rows of channels: their forward and backward pass, for training on a CPU.
//
// The equations stand in leaky.py. The matrix products are PyTorch's; all that lies between two of them is one pass
// over the rows, some channels at a time, in float32. The two directions of an exchange read the same features: these are
// joined once, and all gates are one matrix product. The rows are taken in turns that stay in the cache.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace {

using at::Tensor;
using Tensors = std::vector<Tensor>;
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

inline Floats clamp(Floats x, float low, float high) {
  x = x < low ? Floats{} + low : x;
  return x > high ? Floats{} + high : x;
}

// 2^x for |x| <= 126 with a relative error of 3e-7: a polynomial of what rounding x leaves (the Taylor series' terms,
// adjusted to [-1/2, 1/2]), and the whole number added to the exponent's bits.
inline Floats exp2(Floats x) {
  const Floats shifted = x + 12582912.f;  // 1.5 * 2^23 moves the whole number to the lowest bits
  const Floats f = x - (shifted - 12582912.f);
  Floats p = f * 1.3399114e-3f + 9.6184395e-3f;
  p = p * f + 5.5503324e-2f;
  p = p * f + 2.4022710e-1f;
  p = p * f + 6.9314720e-1f;
  p = p * f + 1.f;
  return (Floats)((Ints)p + ((Ints)shifted << 23));
}

inline Floats inverse(Floats x) {
#ifdef __AVX512F__  // half of a division's time: Newton's step doubles the right digits, 14 bits
  const Floats guess = (Floats)_mm512_rcp14_ps((__m512)x);
  return guess * (2.f - x * guess);
#else
  return 1.f / x;
#endif
}

inline Floats sigmoid(Floats x) { return inverse(1.f + exp2(clamp(x * -1.44269504f, -126.f, 126.f))); }

inline Floats tanh(Floats x) { return 2.f * sigmoid(2.f * x) - 1.f; }

// One row: r and z from their logits, in place, and r . y.
template <class T>
void open_gates(int64_t channels, T* __restrict r, T* __restrict message, const T* __restrict donor,
                const float* __restrict bias) {
  T* __restrict z = r + channels;
  for (int64_t c = 0; c < channels; c += LANES) {
    Floats pass = load(r + c), take = load(z + c);
    if (bias) {
      pass += load(bias + c);
      take += load(bias + channels + c);
    }
    pass = sigmoid(pass);
    store(r + c, pass);
    store(z + c, sigmoid(take));
    store(message + c, pass * load(donor + c));
  }
}

// One row: c from what the tanh is taken of, in place, and x'.
template <class T>
void mix(int64_t channels, T* __restrict candidate, T* __restrict out, const T* __restrict z,
         const T* __restrict receiver) {
  for (int64_t c = 0; c < channels; c += LANES) {
    const Floats take = load(z + c), found = tanh(load(candidate + c));
    store(candidate + c, found);
    store(out + c, load(receiver + c) * (1.f - take) + take * found);
  }
}

// One row: from the gradient of x' those of what the tanh is taken of and of z's logits.
template <class T>
void of_mix(int64_t channels, T* __restrict of_candidate, T* __restrict of_take, const T* __restrict given,
            const T* __restrict candidate, const T* __restrict z, const T* __restrict receiver) {
  for (int64_t c = 0; c < channels; c += LANES) {
    const Floats found = load(candidate + c), take = load(z + c), through = load(given + c) * take;
    store(of_candidate + c, through * (1.f - found * found));
    store(of_take + c, (found - load(receiver + c)) * through * (1.f - take));
  }
}

// One row: from the gradient of r . y that of r's logits.
template <class T>
void of_message(int64_t channels, T* __restrict of_pass, const T* __restrict message, const T* __restrict donor,
                const T* __restrict r) {
  for (int64_t c = 0; c < channels; c += LANES) {
    const Floats pass = load(r + c);
    store(of_pass + c, load(message + c) * load(donor + c) * pass * (1.f - pass));
  }
}

// One row: the gradient of features that were read by the gates, received (null if not) and gave (null if not).
template <class T>
void of_features(int64_t channels, T* __restrict to, const T* __restrict of_gates, const T* __restrict of_own,
                 const T* __restrict given, const T* __restrict z, const T* __restrict of_message,
                 const T* __restrict r) {
  for (int64_t c = 0; c < channels; c += LANES) {
    Floats sum = load(of_gates + c);
    if (of_own) {
      const Floats of_out = load(given + c);
      sum += load(of_own + c) + (of_out - of_out * load(z + c));
    }
    if (of_message) sum += load(of_message + c) * load(r + c);
    store(to + c, sum);
  }
}

// A weight of two halves of columns, changed over if `swapped`, set or added to.
template <class T, class S>
void put_weight(T* to, const S* from, int64_t rows, int64_t channels, bool swapped, bool add = false) {
  for (int64_t half = 0; half < 2 * rows; ++half) {
    T* __restrict target = to + (half ^ static_cast<int64_t>(swapped)) * channels;
    const S* __restrict source = from + half * channels;
    for (int64_t c = 0; c < channels; c += LANES) {
      store(target + c, add ? load(target + c) + load(source + c) : load(source + c));
    }
  }
}

template <class T>
T* values(const Tensor& tensor) {
  return static_cast<T*>(tensor.data_ptr());
}

template <class T>
std::vector<T*> values(const Tensors& tensors) {
  std::vector<T*> found;
  for (const Tensor& tensor : tensors) found.push_back(values<T>(tensor));
  return found;
}

template <class F>
void for_rows(int64_t rows, int64_t channels, F f) {
  at::parallel_for(0, rows, std::max<int64_t>(1, 16384 / channels), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) f(row);
  });
}

void multiply(const Tensor& out, const Tensor& a, const Tensor& b) {
  Tensor into = out;
  at::mm_out(into, a, b);
}

Tensors several(int64_t count, int64_t rows, int64_t columns, at::TensorOptions options) {
  return at::empty({count, rows, columns}, options).unbind();
}

struct Saved {
  Tensor w_gates, maps, joined;  // (2 C D, 2 C); [r, z] of each direction (rows, 2 C D); [x, y] (rows, 2 C)
  Tensors ws, candidates, mixed;  // of each direction (C, 2 C); c (rows, C); [r . y, x] (rows, 2 C)

  Tensors list() const {
    Tensors found = {w_gates, maps, joined};
    for (const Tensors* each : {&ws, &candidates, &mixed}) found.insert(found.end(), each->begin(), each->end());
    return found;
  }

  static Saved of(at::TensorList list) {
    const auto first = list.begin() + 3;
    const auto count = (list.end() - first) / 3;
    return {list[0], list[1], list[2], Tensors(first, first + count), Tensors(first + count, first + 2 * count),
            Tensors(first + 2 * count, list.end())};
  }
};

template <class T>
Tensors forward(const Tensor& x, const Tensor& y, at::TensorList gates, at::TensorList biases, at::TensorList ws,
                int64_t turn) {
  const int64_t rows = x.size(0), channels = x.size(1), directions = ws.size(), wide = 2 * directions * channels;
  const auto options = x.options();
  Saved saved{at::empty({wide, 2 * channels}, options),
              at::empty({rows, wide}, options),
              at::empty({rows, 2 * channels}, options),
              several(directions, channels, 2 * channels, options),
              several(directions, rows, channels, options),
              several(directions, rows, 2 * channels, options)};
  Tensors outs;
  for (int64_t d = 0; d < directions; ++d) {
    outs.push_back(at::empty_like(x));
    // Gates of the direction to y read [y, x]: with their columns changed over they read [x, y], as the others do.
    T* to = values<T>(saved.w_gates) + 2 * d * channels * 2 * channels;
    put_weight(to, values<float>(gates[d]), 2 * channels, channels, d == 1);
    put_weight(values<T>(saved.ws[d]), values<float>(ws[d]), channels, channels, false);
  }
  const std::vector<T*> features = {values<T>(x), values<T>(y)}, out = values<T>(outs);
  const std::vector<T*> candidates = values<T>(saved.candidates), mixed = values<T>(saved.mixed);
  const std::vector<float*> bias = values<float>(biases.vec());
  T *maps = values<T>(saved.maps), *joined = values<T>(saved.joined);
  const size_t bytes = channels * sizeof(T);
  for (int64_t start = 0; start < rows; start += turn) {
    const int64_t count = std::min(turn, rows - start);
    const auto part = [&](const Tensor& tensor) { return tensor.narrow(0, start, count); };
    for_rows(count, channels, [&](int64_t i) {
      const int64_t row = start + i;
      for (int64_t side = 0; side < 2; ++side) {
        std::memcpy(joined + (2 * row + side) * channels, features[side] + row * channels, bytes);
      }
    });
    multiply(part(saved.maps), part(saved.joined), saved.w_gates.t());
    for_rows(count, channels, [&](int64_t i) {
      const int64_t row = start + i;
      for (int64_t d = 0; d < directions; ++d) {
        const T *receiver = joined + (2 * row + d) * channels, *donor = joined + (2 * row + 1 - d) * channels;
        T* message = mixed[d] + 2 * row * channels;
        open_gates(channels, maps + row * wide + 2 * d * channels, message, donor, bias.empty() ? nullptr : bias[d]);
        std::memcpy(message + channels, receiver, bytes);
      }
    });
    for (int64_t d = 0; d < directions; ++d) {
      multiply(part(saved.candidates[d]), part(saved.mixed[d]), saved.ws[d].t());
      for_rows(count, channels, [&](int64_t i) {
        const int64_t row = start + i, at = row * channels;
        mix(channels, candidates[d] + at, out[d] + at, maps + row * wide + (2 * d + 1) * channels, features[d] + at);
      });
    }
  }
  Tensors found = outs;
  for (const Tensor& each : saved.list()) found.push_back(each);
  return found;
}

template <class T>
Tensors backward(at::TensorList given, const Saved& saved, int64_t turn) {
  const int64_t rows = saved.joined.size(0), channels = saved.joined.size(1) / 2, directions = saved.ws.size();
  const int64_t wide = 2 * directions * channels, most = std::min(turn, rows);
  const auto options = saved.joined.options(), wider = options.dtype(at::kFloat);
  const Tensors of_both = {at::empty({rows, channels}, options), at::empty({rows, channels}, options)};
  // Written by the first turn, added to by the others; without rows there is no turn.
  const auto weight = [&](int64_t out) {
    return rows ? at::empty({out, 2 * channels}, wider) : at::zeros({out, 2 * channels}, wider);
  };
  const Tensor of_biases = at::zeros({wide}, wider);
  Tensors of_gates, of_ws;
  for (int64_t d = 0; d < directions; ++d) {
    of_gates.push_back(weight(2 * channels));
    of_ws.push_back(weight(channels));
  }
  const Tensor of_logits = at::empty({most, wide}, options), of_joined = at::empty({most, 2 * channels}, options);
  const Tensor gates_now = at::empty({wide, 2 * channels}, options);
  const Tensor w_now = at::empty({channels, 2 * channels}, options);
  const Tensors of_candidates = several(directions, most, channels, options);
  const Tensors of_mixed = several(directions, most, 2 * channels, options);
  const std::vector<T*> to = values<T>(of_both), of_out = values<T>(given.vec());
  const std::vector<T*> candidates = values<T>(saved.candidates);
  const std::vector<T*> of_candidate = values<T>(of_candidates), of_mix_of = values<T>(of_mixed);
  const T *maps = values<T>(saved.maps), *joined = values<T>(saved.joined), *of_gate = values<T>(of_joined);
  T* logits = values<T>(of_logits);
  for (int64_t start = 0; start < rows; start += turn) {
    const int64_t count = std::min(turn, rows - start);
    const auto part = [&](const Tensor& tensor) { return tensor.narrow(0, start, count); };
    const auto now = [&](const Tensor& tensor) { return tensor.narrow(0, 0, count); };
    for_rows(count, channels, [&](int64_t i) {
      const int64_t row = start + i, at = row * channels;
      for (int64_t d = 0; d < directions; ++d) {
        const int64_t z = (2 * d + 1) * channels;
        of_mix(channels, of_candidate[d] + i * channels, logits + i * wide + z, of_out[d] + at, candidates[d] + at,
               maps + row * wide + z, joined + (2 * row + d) * channels);
      }
    });
    for (int64_t d = 0; d < directions; ++d) {
      multiply(now(of_mixed[d]), now(of_candidates[d]), saved.ws[d]);
      multiply(w_now, now(of_candidates[d]).t(), part(saved.mixed[d]));
      put_weight(values<float>(of_ws[d]), values<T>(w_now), channels, channels, false, start > 0);
    }
    for_rows(count, channels, [&](int64_t i) {
      const int64_t row = start + i;
      for (int64_t d = 0; d < directions; ++d) {
        const int64_t r = 2 * d * channels;
        of_message(channels, logits + i * wide + r, of_mix_of[d] + 2 * i * channels,
                   joined + (2 * row + 1 - d) * channels, maps + row * wide + r);
      }
    });
    multiply(now(of_joined), now(of_logits), saved.w_gates);
    multiply(gates_now, now(of_logits).t(), part(saved.joined));
    at::parallel_for(0, wide / LANES, 8, [&](int64_t begin, int64_t end) {
      float* __restrict sums = values<float>(of_biases);
      for (int64_t i = 0; i < count; ++i) {
        const T* __restrict logit = logits + i * wide;
        for (int64_t c = begin * LANES; c < end * LANES; c += LANES) store(sums + c, load(sums + c) + load(logit + c));
      }
    });
    for (int64_t d = 0; d < directions; ++d) {
      const T* from = values<T>(gates_now) + 2 * d * channels * 2 * channels;
      put_weight(values<float>(of_gates[d]), from, 2 * channels, channels, d == 1, start > 0);
    }
    for_rows(count, channels, [&](int64_t i) {
      const int64_t row = start + i, at = row * channels;
      for (int64_t side = 0; side < 2; ++side) {
        const int64_t other = 1 - side;
        const bool receives = side < directions, gives = other < directions;
        const T* of_own = receives ? of_mix_of[side] + (2 * i + 1) * channels : nullptr;
        const T* of_message = gives ? of_mix_of[other] + 2 * i * channels : nullptr;
        const T *z = maps + row * wide + (2 * side + 1) * channels, *r = maps + row * wide + 2 * other * channels;
        of_features(channels, to[side] + at, of_gate + (2 * i + side) * channels, of_own,
                    receives ? of_out[side] + at : nullptr, z, of_message, r);
      }
    });
  }
  Tensors found = of_both;
  found.insert(found.end(), of_gates.begin(), of_gates.end());
  for (const Tensor& each : of_biases.chunk(directions)) found.push_back(each);
  found.insert(found.end(), of_ws.begin(), of_ws.end());
  return found;
}

}  // namespace

// Of D directions, 1 (from y to x) or 2 (and from x to y); rows x and y (N, C) in bfloat16 or float32, C a multiple of
// 16; the weights in float32: gates (2 C, 2 C), biases (2 C) or none at all, ws (C, 2 C). Everything contiguous.
TORCH_LIBRARY(synthmtl, library) {
  // x' of each direction, and what the backward pass needs.
  library.def("leaky_rows(Tensor x, Tensor y, Tensor[] gates, Tensor[] biases, Tensor[] ws, int turn) -> Tensor[]");
  // From the gradients of each x' those of x and y, and of gates, biases and ws of each direction.
  library.def("leaky_rows_backward(Tensor[] given, Tensor[] saved, int turn) -> Tensor[]");
}

TORCH_LIBRARY_IMPL(synthmtl, CPU, library) {
  library.impl("leaky_rows", [](const Tensor& x, const Tensor& y, at::TensorList gates, at::TensorList biases,
                                at::TensorList ws, int64_t turn) {
    const bool half = x.scalar_type() == at::kBFloat16;
    return half ? forward<Half>(x, y, gates, biases, ws, turn) : forward<float>(x, y, gates, biases, ws, turn);
  });
  library.impl("leaky_rows_backward", [](at::TensorList given, at::TensorList saved, int64_t turn) {
    const bool half = saved[0].scalar_type() == at::kBFloat16;
    return half ? backward<Half>(given, Saved::of(saved), turn) : backward<float>(given, Saved::of(saved), turn);
  });
}

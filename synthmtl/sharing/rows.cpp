// Leaky units of 1x1 kernels over rows of channels: their forward and backward pass, for training on a CPU.
//
// The equations stand in leaky.py. The matrix products are PyTorch's; all that lies between two of them is one pass
// over the rows, in float32. The two directions of an exchange read the same features: these are joined once, and all
// gates are one matrix product. The rows are taken in turns that stay in the cache.

#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <vector>

#include "lanes.h"

namespace {

using Tensors = std::vector<Tensor>;

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

template <bool quick>
inline Floats sigmoid(Floats x) {
  x *= -1.44269504f;
#ifdef __AVX512DQ__  // half of a division's time
  if constexpr (quick) return (Floats)_mm512_rcp14_ps((__m512)(1.f + exp2<true>(x)));
  x = (Floats)_mm512_min_ps(_mm512_set1_ps(126.f), (__m512)x);  // Newton's step below makes nothing of 1 / infinity
  const Floats one_more = 1.f + exp2<false>(x), guess = (Floats)_mm512_rcp14_ps((__m512)one_more);
  return guess * (2.f - one_more * guess);
#else
  return 1.f / (1.f + exp2<quick>(x));
#endif
}

inline Floats tanh(Floats x) { return 2.f * sigmoid<false>(2.f * x) - 1.f; }

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
    pass = sigmoid<sizeof(T) == 2>(pass);
    store(r + c, pass);
    store(z + c, sigmoid<sizeof(T) == 2>(take));
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

// One row: from the gradient of x' those of what the tanh is taken of and of z's logits, which are summed up, too.
template <class T>
void of_mix(int64_t channels, T* of_candidate, T* __restrict of_take, float* __restrict sums,
            const T* __restrict given, const T* candidate, const T* __restrict z,
            const T* __restrict receiver) {
  for (int64_t c = 0; c < channels; c += LANES) {
    const Floats found = load(candidate + c), take = load(z + c), through = load(given + c) * take;
    store(of_candidate + c, through * (1.f - found * found));
    const Floats of_logit = (found - load(receiver + c)) * through * (1.f - take);
    store(of_take + c, of_logit);
    store(sums + c, load(sums + c) + of_logit);
  }
}

// One row: from the gradient of r . y that of r's logits, which is summed up, too.
template <class T>
void of_message(int64_t channels, T* __restrict of_pass, float* __restrict sums, const T* __restrict message,
                const T* __restrict donor, const T* __restrict r) {
  for (int64_t c = 0; c < channels; c += LANES) {
    const Floats pass = load(r + c);
    const Floats of_logit = load(message + c) * load(donor + c) * pass * (1.f - pass);
    store(of_pass + c, of_logit);
    store(sums + c, load(sums + c) + of_logit);
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

// A matrix in another precision, set or added to.
template <class T, class S>
void put(T* __restrict to, const S* __restrict from, int64_t count, bool add = false) {
  for (int64_t i = 0; i < count; i += LANES) store(to + i, add ? load(to + i) + load(from + i) : load(from + i));
}

// The same of a matrix of `rows` and `columns` as its transpose; steps lead from one row to the next.
template <class T, class S>
void put_transposed(T* to, int64_t to_step, const S* from, int64_t from_step, int64_t rows, int64_t columns,
                    bool add = false) {
  for (int64_t row = 0; row < rows; row += LANES) {
    for (int64_t column = 0; column < columns; column += LANES) {
      float tile[LANES][LANES];
      for (int64_t i = 0; i < LANES; ++i) store(tile[i], load(from + (row + i) * from_step + column));
      for (int64_t i = 0; i < LANES; ++i) {
        Floats line;
        for (int64_t j = 0; j < LANES; ++j) line[j] = tile[j][i];
        T* const target = to + (column + i) * to_step + row;
        store(target, add ? load(target) + line : line);
      }
    }
  }
}

void multiply(const Tensor& out, const Tensor& a, const Tensor& b) {
  Tensor into = out;
  out.dim() == 2 ? at::mm_out(into, a, b) : at::bmm_out(into, a, b);
}

// One or, of each direction, several.
template <class T>
struct Matrices {
  Tensor memory;
  int64_t offset, count, rows, columns;
  T* data;

  T* row(int64_t index) const { return data + index * columns; }
  T* row(int64_t which, int64_t index) const { return row(which * rows + index); }
  Tensor first(int64_t some) const {
    return count ? memory.as_strided({count, some, columns}, {rows * columns, columns, 1}, offset)
                 : memory.as_strided({some, columns}, {columns, 1}, offset);
  }
  Tensor all() const { return first(rows); }
};

// Matrices one behind the other in one tensor: a large allocation costs as much as thousands of features.
template <class T>
class Memory {
 public:
  explicit Memory(const Tensor& memory) : memory_(memory) {}
  Memory(int64_t count, at::TensorOptions options) : memory_(at::empty({count}, options)) {}

  Matrices<T> take(int64_t rows, int64_t columns) { return take(0, rows, columns); }
  Matrices<T> take(int64_t count, int64_t rows, int64_t columns) {
    const int64_t offset = used_;
    used_ += std::max<int64_t>(1, count) * rows * columns;
    return {memory_, offset, count, rows, columns, values<T>(memory_) + offset};
  }
  const Tensor& tensor() const { return memory_; }

 private:
  Tensor memory_;
  int64_t used_ = 0;
};

// In the features' precision: all gates' (2 C, 2 C D), transposed, as products take them more quickly, and the
// candidates' (D, C, 2 C) of D directions.
template <class T>
struct Weights {
  Memory<T> memory;
  Matrices<T> gates, candidates;

  Weights(Memory<T> given, int64_t channels, int64_t directions)
      : memory(given),
        gates(memory.take(2 * channels, 2 * directions * channels)),
        candidates(memory.take(directions, channels, 2 * channels)) {}
  static int64_t size(int64_t channels, int64_t directions) { return 6 * directions * channels * channels; }
};

// What a backward pass needs of a turn: [r, z] of each of D directions (rows, 2 C D); [x, y] (rows, 2 C); of all
// directions c (D, rows, C) and [r . y, x] (D, rows, 2 C).
template <class T>
struct Turn {
  Memory<T> memory;
  Matrices<T> maps, joined, candidates, mixed;

  Turn(Memory<T> given, int64_t rows, int64_t channels, int64_t directions)
      : memory(given),
        maps(memory.take(rows, 2 * directions * channels)),
        joined(memory.take(rows, 2 * channels)),
        candidates(memory.take(directions, rows, channels)),
        mixed(memory.take(directions, rows, 2 * channels)) {}
  static int64_t size(int64_t rows, int64_t channels, int64_t directions) {
    return rows * channels * (2 + 5 * directions);
  }
};

Tensor in_full(const Tensor& weight) { return weight.to(at::kFloat).contiguous(); }

template <class T>
Tensors forward(const Tensor& x, const Tensor& y, at::TensorList gates, at::TensorList biases, at::TensorList ws,
                int64_t most) {
  const int64_t channels = x.size(1), rows = x.numel() / channels, directions = ws.size();
  const int64_t wide = 2 * directions * channels;
  const Weights<T> weights({Weights<T>::size(channels, directions), x.options()}, channels, directions);
  const Tensor last[] = {channels_last(x), channels_last(y)};
  const T* features[] = {values<T>(last[0]), values<T>(last[1])};
  Tensors found, full;
  std::vector<T*> out;
  std::vector<const float*> bias;
  for (int64_t d = 0; d < directions; ++d) {
    found.push_back(like(x));
    out.push_back(values<T>(found.back()));
    // Gates of the direction to y read [y, x]: with their columns changed over they read [x, y], as the others do.
    const Tensor gate = in_full(gates[d]);
    for (int64_t half = 0; half < 2; ++half) {
      put_transposed(weights.gates.row((d ? 1 - half : half) * channels) + 2 * d * channels, wide,
                     values<float>(gate) + half * channels, 2 * channels, 2 * channels, channels);
    }
    put(weights.candidates.row(d, 0), values<float>(in_full(ws[d])), 2 * channels * channels);
    if (!biases.empty()) full.push_back(in_full(biases[d]));
    bias.push_back(biases.empty() ? nullptr : values<float>(full.back()));
  }
  found.push_back(weights.memory.tensor());
  for (int64_t start = 0; start < rows; start += most) {
    const int64_t count = std::min(most, rows - start);
    const Turn<T> turn({Turn<T>::size(count, channels, directions), x.options()}, count, channels, directions);
    const T* given[] = {features[0] + start * channels, features[1] + start * channels};
    for_rows(count, channels, [&](int64_t i, int64_t) {
      for (int64_t side = 0; side < 2; ++side) {
        const T* from = given[side] + i * channels;
        std::memcpy(turn.joined.row(i) + side * channels, from, channels * sizeof(T));
        if (side < directions) std::memcpy(turn.mixed.row(side, i) + channels, from, channels * sizeof(T));
      }
    });
    multiply(turn.maps.all(), turn.joined.all(), weights.gates.all());
    for_rows(count, channels, [&](int64_t i, int64_t) {
      for (int64_t d = 0; d < directions; ++d) {
        open_gates(channels, turn.maps.row(i) + 2 * d * channels, turn.mixed.row(d, i),
                   turn.joined.row(i) + (1 - d) * channels, bias[d]);
      }
    });
    multiply(turn.candidates.all(), turn.mixed.all(), weights.candidates.all().transpose(1, 2));
    for_rows(count, channels, [&](int64_t i, int64_t) {
      for (int64_t d = 0; d < directions; ++d) {
        mix(channels, turn.candidates.row(d, i), out[d] + (start + i) * channels,
            turn.maps.row(i) + (2 * d + 1) * channels, given[d] + i * channels);
      }
    });
    found.push_back(turn.memory.tensor());
  }
  return found;
}

template <class T>
Tensors backward(at::TensorList given, at::TensorList kept, bool biased, bool last_time, int64_t most) {
  const int64_t channels = given[0].size(1), rows = given[0].numel() / channels, directions = given.size();
  const int64_t wide = 2 * directions * channels;
  const Weights<T> weights(Memory<T>(kept[0]), channels, directions);
  const auto options = kept[0].options(), wider = options.dtype(at::kFloat);
  most = std::min(most, rows);
  Tensors found = {like(given[0]), like(given[0])}, last;
  T* to[] = {values<T>(found[0]), values<T>(found[1])};
  // Written by the first turn, added to by the others; without rows there is no turn.
  const auto weight = [&](int64_t out) {
    const std::vector<int64_t> shape = {out, 2 * channels, 1, 1};
    return found.emplace_back(rows ? at::empty(shape, wider) : at::zeros(shape, wider));
  };
  std::vector<float*> of_gates, of_ws, of_bias;
  std::vector<const T*> of_out;
  for (int64_t d = 0; d < directions; ++d) {
    last.push_back(channels_last(given[d]));
    of_out.push_back(values<T>(last.back()));
    of_gates.push_back(values<float>(weight(2 * channels)));
    if (biased) of_bias.push_back(values<float>(found.emplace_back(at::empty({2 * channels}, wider))));
    of_ws.push_back(values<float>(weight(channels)));
  }
  const int64_t weights_size = Weights<T>::size(channels, directions);
  Memory<T> passing((last_time ? most * wide : Turn<T>::size(most, channels, directions)) + weights_size, options);
  const Matrices<T> of_logits = passing.take(most, wide);
  const Matrices<T> gates_now = passing.take(2 * channels, wide);
  const Matrices<T> ws_now = passing.take(directions, channels, 2 * channels);
  const Tensor sums = at::zeros({at::get_num_threads(), wide}, wider);
  float* const sum = values<float>(sums);
  for (int64_t start = 0; start < rows; start += most) {
    const int64_t count = std::min(most, rows - start);
    const Turn<T> turn(Memory<T>(kept[1 + start / most]), count, channels, directions);
    Memory<T> rest = passing;  // products read a turn's matrices before those that take their place are written
    const Matrices<T> of_joined = last_time ? turn.joined : rest.take(most, 2 * channels);
    const Matrices<T> of_candidates = last_time ? turn.candidates : rest.take(directions, most, channels);
    const Matrices<T> of_mixed = last_time ? turn.mixed : rest.take(directions, most, 2 * channels);
    for_rows(count, channels, [&](int64_t i, int64_t thread) {
      for (int64_t d = 0; d < directions; ++d) {
        const int64_t z = (2 * d + 1) * channels;
        of_mix(channels, of_candidates.row(d, i), of_logits.row(i) + z, sum + thread * wide + z,
               of_out[d] + (start + i) * channels, turn.candidates.row(d, i), turn.maps.row(i) + z,
               turn.joined.row(i) + d * channels);
      }
    });
    const Tensor of_now = of_candidates.first(count);
    multiply(ws_now.all(), of_now.transpose(1, 2), turn.mixed.all());
    multiply(of_mixed.first(count), of_now, weights.candidates.all());
    for_rows(count, channels, [&](int64_t i, int64_t thread) {
      for (int64_t d = 0; d < directions; ++d) {
        const int64_t r = 2 * d * channels;
        of_message(channels, of_logits.row(i) + r, sum + thread * wide + r, of_mixed.row(d, i),
                   turn.joined.row(i) + (1 - d) * channels, turn.maps.row(i) + r);
      }
    });
    const Tensor logits = of_logits.first(count);
    multiply(gates_now.all(), turn.joined.all().t(), logits);
    multiply(of_joined.first(count), logits, weights.gates.all().t());
    for (int64_t d = 0; d < directions; ++d) {
      for (int64_t half = 0; half < 2; ++half) {
        put_transposed(of_gates[d] + half * channels, 2 * channels,
                       gates_now.row((d ? 1 - half : half) * channels) + 2 * d * channels, wide, channels, 2 * channels,
                       start > 0);
      }
      put(of_ws[d], ws_now.row(d, 0), 2 * channels * channels, start > 0);
    }
    for_rows(count, channels, [&](int64_t i, int64_t) {
      const int64_t at = (start + i) * channels;
      for (int64_t side = 0; side < 2; ++side) {
        const int64_t other = 1 - side;
        const bool receives = side < directions, gives = other < directions;
        const T* of_own = receives ? of_mixed.row(side, i) + channels : nullptr;
        const T* of_message = gives ? of_mixed.row(other, i) : nullptr;
        of_features(channels, to[side] + at, of_joined.row(i) + side * channels, of_own,
                    receives ? of_out[side] + at : nullptr, turn.maps.row(i) + (2 * side + 1) * channels, of_message,
                    turn.maps.row(i) + 2 * other * channels);
      }
    });
  }
  for (size_t d = 0; d < of_bias.size(); ++d) {
    for (int64_t thread = 0; thread < sums.size(0); ++thread) {
      put(of_bias[d], sum + thread * wide + 2 * d * channels, 2 * channels, thread > 0);
    }
  }
  return found;
}

}  // namespace

// Of D directions, 1 (from y to x) or 2 (and from x to y); x and y (B, C, H, W) in bfloat16 or float32, C a multiple of
// 16, computed as rows with their channels last, `turn` of them at a time; gates (2 C, 2 C, 1, 1), biases (2 C) or none
// at all, ws (C, 2 C, 1, 1).
TORCH_LIBRARY_FRAGMENT(synthmtl, library) {
  // x' of each direction, and what the backward pass needs: `Weights`, and every `Turn`.
  library.def("leaky_rows(Tensor x, Tensor y, Tensor[] gates, Tensor[] biases, Tensor[] ws, int turn) -> Tensor[]");
  // From the gradients of each x' those of x and y, and of each direction's gates, bias (if biased) and w. The last
  // time, what was kept is written over.
  library.def("leaky_rows_backward(Tensor[] given, Tensor[] kept, bool biased, bool last_time, int turn) -> Tensor[]");
}

TORCH_LIBRARY_IMPL(synthmtl, CPU, library) {
  library.impl("leaky_rows", [](const Tensor& x, const Tensor& y, at::TensorList gates, at::TensorList biases,
                                at::TensorList ws, int64_t turn) {
    const bool half = x.scalar_type() == at::kBFloat16;
    return half ? forward<Half>(x, y, gates, biases, ws, turn) : forward<float>(x, y, gates, biases, ws, turn);
  });
  library.impl("leaky_rows_backward", [](at::TensorList given, at::TensorList kept, bool biased, bool last_time,
                                         int64_t turn) {
    const bool half = kept[0].scalar_type() == at::kBFloat16;
    return (half ? backward<Half> : backward<float>)(given, kept, biased, last_time, turn);
  });
}

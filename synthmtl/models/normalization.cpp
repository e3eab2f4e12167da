// Batch normalization by moments that were computed together with other processes, for training on a CPU.
//
// A process tells the others two numbers a channel, forwards and backwards; cross_process.py carries them over. In
// front of each message the features are read once, and once behind it, as by PyTorch's batch normalization of one
// process. Put together from PyTorch's operations, it is twice as often.

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <cmath>
#include <tuple>
#include <vector>

#include "lanes.h"

namespace {

constexpr int64_t BLOCK = 64;  // rows that are summed up in float32, the blocks' sums then in float64

// Two sums over the rows a channel, (2, C): add(row, channel, one, other) adds the summands of some channels.
template <class F>
std::vector<double> two_sums(int64_t rows, int64_t channels, F add) {
  const int64_t blocks = (rows + BLOCK - 1) / BLOCK;
  std::vector<double> of_threads(at::get_num_threads() * 2 * channels);
  at::parallel_for(0, blocks, std::max<int64_t>(1, 16384 / (BLOCK * channels)), [&](int64_t begin, int64_t end) {
    double* __restrict sums = of_threads.data() + at::get_thread_num() * 2 * channels;
    for (int64_t block = begin; block < end; ++block) {
      const int64_t last = std::min(rows, (block + 1) * BLOCK);
      for (int64_t c = 0; c < channels; c += LANES) {
        Floats one{}, other{}, one_too{}, other_too{};  // in turns: an addition waits for the one before
        int64_t row = block * BLOCK;
        for (; row + 1 < last; row += 2) {
          add(row, c, one, other);
          add(row + 1, c, one_too, other_too);
        }
        if (row < last) add(row, c, one, other);
        one += one_too;
        other += other_too;
        for (int64_t lane = 0; lane < LANES; ++lane) {
          sums[c + lane] += one[lane];
          sums[channels + c + lane] += other[lane];
        }
      }
    }
  });
  std::vector<double> found(2 * channels);
  for (size_t i = 0; i < of_threads.size(); ++i) found[i % found.size()] += of_threads[i];
  return found;
}

Tensor pairs(int64_t channels, const Tensor& features) {
  return at::empty({2, channels}, features.options().dtype(at::kFloat).memory_format(at::MemoryFormat::Contiguous));
}

bool is_half(const Tensor& features) { return features.scalar_type() == at::kBFloat16; }

template <class T>
Tensor moments(const Tensor& features) {
  const Tensor last = channels_last(features);
  const int64_t channels = last.size(1), rows = last.numel() / channels;
  TORCH_CHECK(rows > 0, "features of no face have no mean");
  const T* x = values<T>(last);
  // Around the first row, which is about as far from the mean as others are: squares of large numbers would cancel.
  const auto sums = two_sums(rows, channels, [&](int64_t row, int64_t c, Floats& one, Floats& other) {
    const Floats off = load(x + row * channels + c) - load(x + c);
    one += off;
    other += off * off;
  });
  const Tensor found = pairs(channels, features);
  float* to = values<float>(found);
  for (int64_t c = 0; c < channels; ++c) {
    const double off = sums[c] / rows;
    float first[LANES];
    store(first, load(x + c / LANES * LANES));
    to[c] = first[c % LANES] + off;
    to[channels + c] = std::max(0.0, sums[channels + c] / rows - off * off);
  }
  return found;
}

template <class T>
std::tuple<Tensor, Tensor> normalize(const Tensor& features, const Tensor& of_all, const Tensor& weight,
                                     const Tensor& bias, const Tensor& running_mean, const Tensor& running_var,
                                     double momentum, double eps) {
  const Tensor last = channels_last(features), out = like(last);
  const int64_t channels = last.size(1), rows = last.numel() / channels, processes = of_all.size(0);
  const float *told = values<float>(of_all), *w = values<float>(weight), *b = values<float>(bias);
  float *kept_mean = values<float>(running_mean), *kept_var = values<float>(running_var);
  const Tensor statistics = pairs(channels, features);
  float *means = values<float>(statistics), *inverse = means + channels;
  std::vector<float> scale(channels);
  const double count = static_cast<double>(processes) * rows;
  for (int64_t c = 0; c < channels; ++c) {
    double mean = 0, variance = 0;
    for (int64_t p = 0; p < processes; ++p) mean += told[2 * p * channels + c] / processes;
    // Variances within and between: the mean of squares less the squared mean cancels where the mean is large.
    for (int64_t p = 0; p < processes; ++p) {
      const double off = told[2 * p * channels + c] - mean;
      variance += (told[(2 * p + 1) * channels + c] + off * off) / processes;
    }
    kept_mean[c] += momentum * (mean - kept_mean[c]);
    kept_var[c] += momentum * (variance * count / std::max(count - 1, 1.0) - kept_var[c]);
    means[c] = mean;
    inverse[c] = 1 / std::sqrt(variance + eps);
    scale[c] = w[c] * inverse[c];
  }
  const T* x = values<T>(last);
  T* to = values<T>(out);
  for_rows(rows, channels, [&](int64_t row, int64_t) {
    for (int64_t c = 0; c < channels; c += LANES) {
      const Floats off = load(x + row * channels + c) - load(means + c);
      store(to + row * channels + c, off * load(&scale[c]) + load(b + c));
    }
  });
  return {out, statistics};
}

template <class T>
Tensor backward_sums(const Tensor& gradient, const Tensor& features, const Tensor& statistics) {
  const Tensor last = channels_last(features), given = channels_last(gradient);
  const int64_t channels = last.size(1), rows = last.numel() / channels;
  const T *x = values<T>(last), *of_out = values<T>(given);
  const float *means = values<float>(statistics), *inverse = means + channels;
  const auto sums = two_sums(rows, channels, [&](int64_t row, int64_t c, Floats& one, Floats& other) {
    const Floats of_row = load(of_out + row * channels + c);
    one += of_row * (load(x + row * channels + c) - load(means + c));
    other += of_row;
  });
  const Tensor found = pairs(channels, features);
  float* to = values<float>(found);
  for (int64_t c = 0; c < channels; ++c) {
    to[c] = sums[c] * inverse[c];
    to[channels + c] = sums[channels + c];
  }
  return found;
}

template <class T>
Tensor backward(const Tensor& gradient, const Tensor& features, const Tensor& weight, const Tensor& statistics,
                const Tensor& of_all) {
  const Tensor last = channels_last(features), given = channels_last(gradient), out = like(last);
  const int64_t channels = last.size(1), rows = last.numel() / channels, processes = of_all.size(0);
  const float *means = values<float>(statistics), *inverse = means + channels, *w = values<float>(weight);
  const float* told = values<float>(of_all);
  std::vector<float> scale(channels), along(channels), level(channels);
  for (int64_t c = 0; c < channels; ++c) {
    double of_weight = 0, of_bias = 0;
    for (int64_t p = 0; p < processes; ++p) {
      of_weight += told[2 * p * channels + c];
      of_bias += told[(2 * p + 1) * channels + c];
    }
    scale[c] = w[c] * inverse[c];
    along[c] = of_weight * inverse[c] / (processes * rows);
    level[c] = of_bias / (processes * rows);
  }
  const T *x = values<T>(last), *of_out = values<T>(given);
  T* to = values<T>(out);
  for_rows(rows, channels, [&](int64_t row, int64_t) {
    for (int64_t c = 0; c < channels; c += LANES) {
      const int64_t at = row * channels + c;
      const Floats through = (load(x + at) - load(means + c)) * load(&along[c]) + load(&level[c]);
      store(to + at, (load(of_out + at) - through) * load(&scale[c]));
    }
  });
  return out;
}

}  // namespace

// Features and gradients (B, C, H, W) in bfloat16 or float32, C a multiple of 16; all else in float32.
TORCH_LIBRARY_FRAGMENT(synthmtl, library) {
  // Mean and (biased) variance of this process's rows, (2, C).
  library.def("moments(Tensor features) -> Tensor");
  // The normalized features by the moments of all processes (P, 2, C), and their mean and inverse deviation, (2, C).
  library.def(
      "normalize(Tensor features, Tensor of_all, Tensor weight, Tensor bias, Tensor(a!) running_mean, "
      "Tensor(b!) running_var, float momentum, float eps) -> (Tensor, Tensor)");
  // The gradients of weight and bias by this process's rows, (2, C).
  library.def("normalize_sums(Tensor gradient, Tensor features, Tensor statistics) -> Tensor");
  // That of the features, given those sums of all processes (P, 2, C).
  library.def(
      "normalize_backward(Tensor gradient, Tensor features, Tensor weight, Tensor statistics, Tensor of_all) -> Tensor");
}

TORCH_LIBRARY_IMPL(synthmtl, CPU, library) {
  library.impl("moments", [](const Tensor& x) { return is_half(x) ? moments<Half>(x) : moments<float>(x); });
  library.impl("normalize", [](const Tensor& x, const Tensor& of_all, const Tensor& weight, const Tensor& bias,
                               const Tensor& mean, const Tensor& variance, double momentum, double eps) {
    const auto f = is_half(x) ? normalize<Half> : normalize<float>;
    return f(x, of_all, weight, bias, mean, variance, momentum, eps);
  });
  library.impl("normalize_sums", [](const Tensor& gradient, const Tensor& x, const Tensor& statistics) {
    return (is_half(x) ? backward_sums<Half> : backward_sums<float>)(gradient, x, statistics);
  });
  library.impl("normalize_backward", [](const Tensor& gradient, const Tensor& x, const Tensor& weight,
                                        const Tensor& statistics, const Tensor& of_all) {
    return (is_half(x) ? backward<Half> : backward<float>)(gradient, x, weight, statistics, of_all);
  });
}

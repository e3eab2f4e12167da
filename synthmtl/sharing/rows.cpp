// Leaky units of 1x1 kernels over rows of channels: their forward and backward pass, for training on a CPU.
//
// The equations stand in leaky.py. The matrix products are PyTorch's; all that lies between two of them is one pass
// over the rows, in float32. The two directions of an exchange read the same features: these are joined once, and all
// gates are one matrix product. The rows are taken in turns that stay in the cache.

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/lerp.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/graph_task.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

#include "functions.h"
#include "matrices.h"

namespace {

using Tensors = std::vector<Tensor>;

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
    const Floats take = load(z + c), found = tanh<sizeof(T) == 2>(load(candidate + c));
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
  const auto add = [&](at::IntArrayRef shape) {
    return values<float>(found.emplace_back(rows ? at::empty(shape, wider) : at::zeros(shape, wider)));
  };
  std::vector<float*> of_gates, of_bias, of_ws;
  std::vector<const T*> of_out;
  for (const Tensor& each : given) {
    last.push_back(channels_last(each));
    of_out.push_back(values<T>(last.back()));
    of_gates.push_back(add({2 * channels, 2 * channels, 1, 1}));
  }
  for (int64_t d = 0; biased && d < directions; ++d) of_bias.push_back(add({2 * channels}));
  for (int64_t d = 0; d < directions; ++d) of_ws.push_back(add({channels, 2 * channels, 1, 1}));
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

// The same of weights in any precision, for autograd.
Tensors plain(const Tensor& x, const Tensor& y, at::TensorList gates, at::TensorList biases, at::TensorList ws) {
  const auto matrix = [&](const Tensor& weight) { return weight.flatten(1).to(x.scalar_type()).t(); };
  const Tensor rows[] = {x.movedim(1, 3), y.movedim(1, 3)};
  Tensors found;
  for (size_t d = 0; d < ws.size(); ++d) {
    const Tensor &receiver = rows[d], &donor = rows[1 - d];
    Tensor logits = at::matmul(at::cat(Tensors{receiver, donor}, 3), matrix(gates[d]));
    if (!biases.empty()) logits = logits + biases[d].to(x.scalar_type());
    const Tensors maps = at::sigmoid(logits).chunk(2, 3);
    const Tensor candidate = at::tanh(at::matmul(at::cat(Tensors{maps[0] * donor, receiver}, 3), matrix(ws[d])));
    found.push_back(at::lerp(receiver, candidate, maps[1]).movedim(3, 1));
  }
  return found;
}

// Many gradients handed over as one, by vmap or its older kind, or one that a transformation watches.
bool is_wrapped(const Tensor& gradient) {
  using at::DispatchKey;
  const auto kinds = {DispatchKey::FuncTorchBatched, DispatchKey::FuncTorchGradWrapper, DispatchKey::Batched};
  return gradient.key_set().has_any(at::DispatchKeySet(kinds));
}

Tensors forward(const Tensor& x, const Tensor& y, at::TensorList gates, at::TensorList biases, at::TensorList ws,
                int64_t turn) {
  TORCH_CHECK(gates.size() == ws.size() && (biases.empty() || biases.size() == ws.size()), "leaky_rows: ", gates.size(),
              " gates and ", biases.size(), " biases of ", ws.size(), " directions");
  const bool half = x.scalar_type() == at::kBFloat16;
  return (half ? forward<Half> : forward<float>)(x, y, gates, biases, ws, turn);
}

// A gradient of a gradient, and those of many losses at once, go through autograd.
class LeakyRows : public torch::autograd::Function<LeakyRows> {
  using Context = torch::autograd::AutogradContext;

 public:
  static Tensors forward(Context* context, const Tensor& x, const Tensor& y, at::TensorList gates,
                         at::TensorList biases, at::TensorList ws, int64_t turn) {
    const at::AutoDispatchBelowADInplaceOrView below;
    Tensors found = ::forward(x, y, gates, biases, ws, turn), saved = {x, y};
    for (const at::TensorList& weights : {gates, biases, ws}) saved.insert(saved.end(), weights.begin(), weights.end());
    context->saved_data["weights"] = static_cast<int64_t>(saved.size() - 2);
    saved.insert(saved.end(), found.begin() + ws.size(), found.end());
    context->save_for_backward(std::move(saved));
    context->saved_data["turn"] = turn;
    // A direction that no loss reaches has no gradient, as without this function: whoever combines the gradients of
    // tasks, or decays what is trained, would take zeros for one.
    context->set_materialize_grads(false);
    found.resize(ws.size());
    return found;
  }

  static Tensors backward(Context* context, Tensors given) {
    const Tensors saved = context->get_saved_variables();
    const at::TensorList all(saved);
    const int64_t directions = given.size(), inputs = 2 + context->saved_data["weights"].toInt();
    const at::TensorList gates = all.slice(2, directions), ws = all.slice(inputs - directions, directions);
    const at::TensorList biases = all.slice(2 + directions, inputs - 2 - 2 * directions);
    Tensors found;
    if (at::GradMode::is_enabled() || std::any_of(given.begin(), given.end(), is_wrapped)) {
      const bool create_graph = at::GradMode::is_enabled();
      const at::AutoGradMode enabled(true);
      const Tensors again = plain(saved[0], saved[1], gates, biases, ws);
      Tensors wanted, reached, of_reached;
      for (const Tensor& input : all.slice(0, inputs)) {
        if (input.requires_grad()) wanted.push_back(input);
      }
      for (int64_t d = 0; d < directions; ++d) {
        if (!given[d].defined()) continue;
        reached.push_back(again[d]);
        of_reached.push_back(given[d]);
      }
      Tensors of_wanted = torch::autograd::grad(reached, wanted, of_reached, std::nullopt, create_graph, true);
      auto next = of_wanted.begin();
      for (const Tensor& input : all.slice(0, inputs)) found.push_back(input.requires_grad() ? *next++ : Tensor());
    } else {
      const at::AutoDispatchBelowADInplaceOrView below;
      const bool half = saved[0].scalar_type() == at::kBFloat16;
      const bool last_time = !torch::autograd::get_current_graph_task_keep_graph();
      std::vector<bool> reached;
      for (Tensor& one : given) {
        reached.push_back(one.defined());
        if (!one.defined()) one = at::zeros_like(saved[0]);
      }
      found = (half ? ::backward<Half> : ::backward<float>)(given, all.slice(inputs), !biases.empty(), last_time,
                                                           context->saved_data["turn"].toInt());
      for (int64_t i = 2; i < inputs; ++i) {
        found[i] = reached[(i - 2) % directions] ? found[i].to(saved[i].scalar_type()) : Tensor();
      }
    }
    found.emplace_back();  // of `turn`
    return found;
  }
};

}  // namespace

// Of D directions, 1 (from y to x) or 2 (and from x to y); x and y (B, C, H, W) in bfloat16 or float32, C a multiple of
// 16, computed as rows with their channels last, `turn` of them at a time; gates (2 C, 2 C, 1, 1), biases (2 C) or none
// at all, ws (C, 2 C, 1, 1).
TORCH_LIBRARY_FRAGMENT(synthmtl, library) {
  // x' of each direction.
  library.def("leaky_rows(Tensor x, Tensor y, Tensor[] gates, Tensor[] biases, Tensor[] ws, int turn) -> Tensor[]");
}

TORCH_LIBRARY_IMPL(synthmtl, CPU, library) {
  library.impl("leaky_rows", [](const Tensor& x, const Tensor& y, at::TensorList gates, at::TensorList biases,
                                at::TensorList ws, int64_t turn) {
    Tensors found = forward(x, y, gates, biases, ws, turn);
    found.resize(ws.size());
    return found;
  });
}

TORCH_LIBRARY_IMPL(synthmtl, AutogradCPU, library) {
  library.impl("leaky_rows", [](const Tensor& x, const Tensor& y, at::TensorList gates, at::TensorList biases,
                                at::TensorList ws, int64_t turn) {
    return LeakyRows::apply(x, y, gates, biases, ws, turn);
  });
}

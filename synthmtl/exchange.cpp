// The letters of exchange.py's Mailbox, written and waited for without Python in between.

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <sched.h>
#include <torch/library.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <thread>

namespace {

using at::Tensor;

struct Word {  // eight bytes, which processors write at once
  int32_t round, number;
};

int64_t joined(Word word) {
  int64_t bits;
  std::memcpy(&bits, &word, sizeof bits);
  return bits;
}

// Looks without pause at first. Then it makes room for others: should one of them be on this core, it has to go on.
void wait_a_little(double waited, double spin) {
  if (waited < spin) {
    sched_yield();
  } else {
    std::this_thread::sleep_for(std::chrono::duration<double>(std::clamp(waited / 16, 1e-5, 1e-3)));
  }
}

// Every process's numbers (P, N), or none at all if they are not there after some seconds.
Tensor exchange(const Tensor& letters, int64_t rank, int64_t round, const Tensor& mine, double spin, double seconds) {
  const int64_t processes = letters.size(1), capacity = letters.size(2), count = mine.numel();
  TORCH_CHECK(count <= capacity, "a letter holds ", capacity, " numbers, not ", count);
  int64_t* const places = letters.data_ptr<int64_t>() + round % 2 * processes * capacity;
  const Tensor numbers = mine.contiguous();
  const float* from = numbers.data_ptr<float>();
  for (int64_t i = 0; i < count; ++i) {
    Word word{static_cast<int32_t>(round), 0};
    std::memcpy(&word.number, from + i, sizeof word.number);
    std::atomic_ref(places[rank * capacity + i]).store(joined(word), std::memory_order_release);
  }
  const Tensor found = at::empty({processes, count}, numbers.options());
  float* to = found.data_ptr<float>();
  const auto since = std::chrono::steady_clock::now();
  for (int64_t p = 0; p < processes; ++p) {
    for (int64_t i = 0; i < count; ++i) {
      Word word;
      while (true) {
        const int64_t bits = std::atomic_ref(places[p * capacity + i]).load(std::memory_order_acquire);
        std::memcpy(&word, &bits, sizeof word);
        if (word.round == round) break;
        const std::chrono::duration<double> waited = std::chrono::steady_clock::now() - since;
        if (waited.count() > seconds) return at::empty({0}, numbers.options());
        wait_a_little(waited.count(), spin);
      }
      std::memcpy(to + p * count + i, &word.number, sizeof word.number);
    }
  }
  return found;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(synthmtl, library) {
  library.def(
      "exchange(Tensor(a!) letters, int rank, int round, Tensor mine, float spin, float seconds) -> Tensor");
}

TORCH_LIBRARY_IMPL(synthmtl, CPU, library) { library.impl("exchange", exchange); }

// Matrices in float32 or bfloat16: as parts of one tensor, multiplied, converted and transposed.

#pragma once

#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>

#include "lanes.h"

namespace {

#ifdef __AVX512F__
// Two blocks of a square, `step` wide, beside every block pair's diagonal change places; then those within each.
template <int step>
inline void transpose(Floats (&rows)[LANES]) {
  const Ints lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const Ints upper = (lane & step) == 0 ? lane : lane + (16 - step);
  const Ints lower = (lane & step) == 0 ? lane + step : lane + 16;
#pragma GCC unroll 16
  for (int i = 0; i < LANES; ++i) {
    if (i & step) continue;
    const __m512 a = (__m512)rows[i], b = (__m512)rows[i + step];
    rows[i] = (Floats)_mm512_permutex2var_ps(a, (__m512i)upper, b);
    rows[i + step] = (Floats)_mm512_permutex2var_ps(a, (__m512i)lower, b);
  }
  if constexpr (step > 1) transpose<step / 2>(rows);
}
#endif

inline void transpose_square(Floats (&rows)[LANES]) {
#ifdef __AVX512F__
  transpose<LANES / 2>(rows);
#else
  for (int i = 0; i < LANES; ++i) {
    for (int j = 0; j < i; ++j) {
      const float other = rows[i][j];
      rows[i][j] = rows[j][i];
      rows[j][i] = other;
    }
  }
#endif
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
      Floats tile[LANES];
#pragma GCC unroll 16
      for (int64_t i = 0; i < LANES; ++i) tile[i] = load(from + (row + i) * from_step + column);
      transpose_square(tile);
#pragma GCC unroll 16
      for (int64_t i = 0; i < LANES; ++i) {
        T* const target = to + (column + i) * to_step + row;
        store(target, add ? load(target) + tile[i] : tile[i]);
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

}  // namespace

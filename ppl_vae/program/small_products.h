// Products of small matrices, for what torch's compiler makes (the C interface of AOTInductor).
//
// Where a product has some ten or hundred thousand multiplications, half of a library's time goes into its call: checks, the
// choice of a kernel, copies of both factors. This is one loop, a panel of columns of the second factor against a few rows of
// the first, sums in registers. It asks nothing of the processor: vectors are the compiler's.
#pragma once

#include <cstdint>
#include <cstring>

#include <torch/csrc/inductor/aoti_torch/c/shim.h>

namespace ppl_vae {

#if defined(__AVX512F__)
constexpr int VECTOR = 64, ROWS = 8;  // bytes of a vector; rows whose sums fit into the registers
#else
constexpr int VECTOR = 32, ROWS = 4;
#endif
constexpr int LONGEST = 512;  // sums, or the copy of a panel outgrows the cache

template <typename Number>
struct Product {
  typedef Number Vector __attribute__((vector_size(VECTOR)));
  static constexpr int lanes = VECTOR / sizeof(Number);

  const Number* left;
  int64_t left_row, left_column;  // strides
  const Number* right;
  int64_t right_row, right_column;
  Number* out;
  int64_t rows, size, columns;

  static inline Vector load(const Number* from) {
    Vector vector;
    std::memcpy(&vector, from, sizeof vector);
    return vector;
  }

  // Of so many vectors of columns, so many rows.
  template <int vectors, int some>
  inline __attribute__((always_inline)) void block(int64_t row, const Number* panel, int64_t apart, int64_t column,
                                                   int64_t kept) const {
    constexpr int last = vectors - 1;
    Vector firsts[some] = {}, lasts[some] = {};
    const Number* factors = left + row * left_row;
    for (int64_t i = 0; i < size; ++i) {
      const Vector first = load(panel + i * apart), other = load(panel + i * apart + last * lanes);
#pragma GCC unroll 8
      for (int r = 0; r < some; ++r) {
        const Number factor = factors[r * left_row + i * left_column];
        firsts[r] += factor * first;
        if (last) lasts[r] += factor * other;
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < some; ++r) {
      Number numbers[2 * lanes], *to = out + (row + r) * columns + column;
      std::memcpy(numbers, &firsts[r], sizeof(Vector));
      if (last) std::memcpy(numbers + lanes, &lasts[r], sizeof(Vector));
      std::memcpy(to, numbers, kept * sizeof(Number));
    }
  }

  // All rows of the columns from this one on, as many as so many vectors hold.
  template <int vectors>
  inline __attribute__((always_inline)) void panel(int64_t column) const {
    constexpr int width = vectors * lanes;
    alignas(VECTOR) Number copy[LONGEST * width];
    const int64_t kept = columns - column < width ? columns - column : width;
    const Number* from = right + column * right_column;
    int64_t apart = right_row;
    if (right_column != 1 || kept < width) {
      for (int64_t c = 0; c < width; ++c)
        for (int64_t i = 0; i < size; ++i) copy[i * width + c] = c < kept ? from[i * right_row + c * right_column] : 0;
      from = copy;
      apart = width;
    }
    int64_t row = 0;
    for (; row + ROWS <= rows; row += ROWS) block<vectors, ROWS>(row, from, apart, column, kept);
    for (; row + 2 <= rows; row += 2) block<vectors, 2>(row, from, apart, column, kept);
    for (; row < rows; ++row) block<vectors, 1>(row, from, apart, column, kept);
  }

  void operator()() const {
    int64_t column = 0;
    for (; columns - column > lanes; column += 2 * lanes) panel<2>(column);
    if (column < columns) panel<1>(column);
  }
};

template <typename Number>
AOTITorchError product(AtenTensorHandle out, AtenTensorHandle left, AtenTensorHandle right) {
  void *to, *first, *second;
  int64_t *sizes, *left_strides, *right_strides, *right_sizes;
  aoti_torch_get_data_ptr(out, &to);
  aoti_torch_get_data_ptr(left, &first);
  aoti_torch_get_data_ptr(right, &second);
  aoti_torch_get_sizes(left, &sizes);
  aoti_torch_get_sizes(right, &right_sizes);
  aoti_torch_get_strides(left, &left_strides);
  aoti_torch_get_strides(right, &right_strides);
  Product<Number>{static_cast<const Number*>(first), left_strides[0], left_strides[1],
                  static_cast<const Number*>(second), right_strides[0], right_strides[1],
                  static_cast<Number*>(to), sizes[0], sizes[1], right_sizes[1]}();
  return AOTI_TORCH_SUCCESS;
}

}  // namespace ppl_vae

// out = left right, out of contiguous rows, both factors however they lie.
static AOTITorchError aoti_torch_cpu_small_product_float32(AtenTensorHandle out, AtenTensorHandle left, AtenTensorHandle right) {
  return ppl_vae::product<float>(out, left, right);
}

static AOTITorchError aoti_torch_cpu_small_product_float64(AtenTensorHandle out, AtenTensorHandle left, AtenTensorHandle right) {
  return ppl_vae::product<double>(out, left, right);
}

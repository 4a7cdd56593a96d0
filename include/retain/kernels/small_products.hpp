// SPDX-License-Identifier: MIT
// The products of small dense layers, for float32 on processors with AVX2:
//
//     y = activate(x W + b),   dW = x^T dy,   dx = dy W^T,   db = sum over rows of dy
//
// A policy's layers are small, so a product takes a few microseconds. A library for large products
// needs as long to choose a kernel, to check the arguments and to pack them. These loops pack
// nothing: a layer's weights stay in the first-level cache, and a tile of 6 by 16 results stays in
// registers.
#pragma once

#include <retain/kernels/activation.hpp>
#include <retain/kernels/instruction_set.hpp>
#include <retain/kernels/plain_floats.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <optional>
#include <type_traits>
#include <utility>

namespace retain::detail {

#if RETAIN_HAS_AVX2_TARGET

/// A matrix in memory: element (i, k) is at data[i * row + k * column].
struct strided_matrix {
  const float* data;
  std::int64_t row, column;
};

template <bool Whole>
RETAIN_AVX2 inline __m256 load_avx2(const float* from, __m256i lanes) {
  return Whole ? _mm256_loadu_ps(from) : _mm256_maskload_ps(from, lanes);
}

/// Computes a tile of `Rows` rows and up to 16 columns: c (+)= a b. The sum starts with `bias`
/// unless that is null. Results below `least` are replaced by `least`. b is read along its rows.
template <int Rows, bool Whole>
RETAIN_AVX2 inline void product_tile_avx2(strided_matrix a, const float* b, std::int64_t b_row,
                                          std::int64_t depth, float* c, std::int64_t c_row,
                                          const float* bias, bool add, float least,
                                          std::int64_t columns) {
  const __m256i low = lanes_avx2(columns), high = lanes_avx2(columns - 8);
  __m256 left[Rows], right[Rows];
#pragma GCC unroll 8
  for (int i = 0; i < Rows; ++i) {
    const float* from = add ? c + i * c_row : bias;
    left[i] = from ? load_avx2<Whole>(from, low) : _mm256_setzero_ps();
    right[i] = from ? load_avx2<Whole>(from + 8, high) : _mm256_setzero_ps();
  }
  for (std::int64_t k = 0; k < depth; ++k) {
    const __m256 of_left = load_avx2<Whole>(b + k * b_row, low),
                 of_right = load_avx2<Whole>(b + k * b_row + 8, high);
#pragma GCC unroll 8
    for (int i = 0; i < Rows; ++i) {
      const __m256 factor = _mm256_broadcast_ss(a.data + i * a.row + k * a.column);
      left[i] = _mm256_fmadd_ps(factor, of_left, left[i]);
      right[i] = _mm256_fmadd_ps(factor, of_right, right[i]);
    }
  }
  const __m256 bound = _mm256_set1_ps(least);
#pragma GCC unroll 8
  for (int i = 0; i < Rows; ++i) {
    left[i] = _mm256_max_ps(bound, left[i]);  // returns the second operand if one is NaN
    right[i] = _mm256_max_ps(bound, right[i]);
    if constexpr (Whole) {
      _mm256_storeu_ps(c + i * c_row, left[i]);
      _mm256_storeu_ps(c + i * c_row + 8, right[i]);
    } else {
      _mm256_maskstore_ps(c + i * c_row, low, left[i]);
      _mm256_maskstore_ps(c + i * c_row + 8, high, right[i]);
    }
  }
}

/// Computes c [rows, columns] (+)= a [rows, depth] b [depth, columns]. The rows of b and c must be
/// contiguous. The sum starts with the row `bias`, which may be null. Results below `least` are
/// replaced by `least`.
inline void product_avx2(std::int64_t rows, std::int64_t columns, std::int64_t depth,
                         strided_matrix a, const float* b, float* c, const float* bias = nullptr,
                         bool add = false, float least = -std::numeric_limits<float>::infinity()) {
  for (std::int64_t j = 0; j < columns; j += 16) {
    const std::int64_t left = columns - j;
    const auto rows_from = [&](std::int64_t i, auto count) {
      constexpr int taken = decltype(count)::value;
      const strided_matrix from{a.data + i * a.row, a.row, a.column};
      auto* tile = left >= 16 ? product_tile_avx2<taken, true> : product_tile_avx2<taken, false>;
      tile(from, b + j, columns, depth, c + i * columns + j, columns, bias ? bias + j : nullptr,
           add, least, left);
    };
    std::int64_t i = 0;
    for (; i + 6 <= rows; i += 6) rows_from(i, std::integral_constant<int, 6>());
    for (; i + 2 <= rows; i += 2) rows_from(i, std::integral_constant<int, 2>());
    if (i < rows) rows_from(i, std::integral_constant<int, 1>());
  }
}

/// Writes the transpose of a [rows, columns] to b [columns, rows].
inline void transpose(const float* a, std::int64_t rows, std::int64_t columns, float* b) {
  for (std::int64_t i = 0; i < rows; i += 8)
    for (std::int64_t j = 0; j < columns; ++j)
      for (std::int64_t k = i; k < std::min(i + 8, rows); ++k) b[j * rows + k] = a[k * columns + j];
}

/// Writes the sums over the rows of a [rows, columns] to sums [columns].
RETAIN_AVX2 inline void column_sums_avx2(const float* a, std::int64_t rows, std::int64_t columns,
                                         float* sums) {
  for (std::int64_t j = 0; j < columns; j += 8) {
    const __m256i lanes = lanes_avx2(columns - j);
    __m256 total = _mm256_setzero_ps();
    for (std::int64_t i = 0; i < rows;) {  // blocks keep a long sum accurate
      __m256 even = _mm256_setzero_ps(), odd = _mm256_setzero_ps();
      const std::int64_t end = std::min<std::int64_t>(rows, i + 256);
      for (; i + 2 <= end; i += 2) {
        even = _mm256_add_ps(even, _mm256_maskload_ps(a + i * columns + j, lanes));
        odd = _mm256_add_ps(odd, _mm256_maskload_ps(a + (i + 1) * columns + j, lanes));
      }
      for (; i < end; ++i)
        even = _mm256_add_ps(even, _mm256_maskload_ps(a + i * columns + j, lanes));
      total = _mm256_add_ps(total, _mm256_add_ps(even, odd));
    }
    _mm256_maskstore_ps(sums + j, lanes, total);
  }
}

/// Computes to = from, or 0 if y <= 0, for each element.
RETAIN_AVX2 inline void relu_gradient_avx2(const float* from, const float* y, std::int64_t count,
                                           float* to) {
  std::int64_t i = 0;
  for (; i + 8 <= count; i += 8) {  // a masked store is slow on some processors
    const __m256 cut = _mm256_cmp_ps(_mm256_loadu_ps(y + i), _mm256_setzero_ps(), _CMP_LE_OQ);
    _mm256_storeu_ps(to + i, _mm256_andnot_ps(cut, _mm256_loadu_ps(from + i)));
  }
  for (; i < count; ++i) to[i] = y[i] <= 0 ? 0 : from[i];
}

#endif  // RETAIN_HAS_AVX2_TARGET

/// The sizes of a layer of one network or of K networks. For one network: x [N, inputs], weight
/// [outputs, inputs] and bias [outputs], as in torch::nn::Linear. For K networks: weight [K,
/// inputs, outputs] and bias [K, 1, outputs], with x [K, N, inputs], or x [N, inputs] for all
/// networks (`shared`).
struct layer_sizes {
  std::int64_t networks, rows, inputs, outputs;
  bool batched, shared;
};
inline layer_sizes sizes_of_layer(const at::Tensor& x, const at::Tensor& weight) {
  const bool batched = weight.dim() == 3;
  return {batched ? weight.size(0) : 1, x.size(-2), weight.size(batched ? 1 : -1),
          weight.size(batched ? 2 : 0), batched,    batched && x.dim() == 2};
}

/// Whether the loops support these tensors. The shapes must fit. The tensors must be plain floats,
/// and the product must be so small that packing would cost more than it saves.
inline bool small_product([[maybe_unused]] const layer_sizes& sizes,
                          [[maybe_unused]] std::initializer_list<const at::Tensor*> tensors) {
#if RETAIN_HAS_AVX2_TARGET
  const auto work = sizes.networks * sizes.rows * sizes.inputs * sizes.outputs;
  return work > 0 && work <= (1 << 21) && has_avx2() && plain_floats(tensors);
#else
  return false;
#endif
}

/// Returns the output of a linear layer followed by the activation, if there is one.
inline at::Tensor layer_output(const at::Tensor& x, const at::Tensor& weight,
                               const at::Tensor& bias, std::optional<activation_kind> kind = {}) {
  const auto activated = [&](at::Tensor y) {
    if (!kind) return y;
    return at::GradMode::is_enabled() ? activate(y, *kind) : activate_in_place(std::move(y), *kind);
  };
  const auto s = sizes_of_layer(x, weight);
#if RETAIN_HAS_AVX2_TARGET
  const bool fits = x.size(-1) == s.inputs && bias.numel() == s.networks * s.outputs &&
                    (!s.batched || s.shared || x.size(0) == s.networks);
  if (fits && small_product(s, {&x, &weight, &bias})) {
    const auto y = s.batched ? at::empty({s.networks, s.rows, s.outputs}, x.options())
                             : at::empty({s.rows, s.outputs}, x.options());
    const auto *from = x.data_ptr<float>(), *w = weight.data_ptr<float>(),
               *b = bias.data_ptr<float>();
    auto* to = y.data_ptr<float>();
    at::Tensor turned;
    if (!s.batched) {
      turned = at::empty({s.inputs, s.outputs}, x.options());
      transpose(w, s.outputs, s.inputs, turned.data_ptr<float>());
      w = turned.data_ptr<float>();
    }
    const bool rectified = kind == activation_kind::relu;
    for (std::int64_t k = 0; k < s.networks; ++k)
      product_avx2(s.rows, s.outputs, s.inputs,
                   {from + (s.shared ? 0 : k * s.rows * s.inputs), s.inputs, 1},
                   w + k * s.inputs * s.outputs, to + k * s.rows * s.outputs, b + k * s.outputs,
                   false, rectified ? 0 : -std::numeric_limits<float>::infinity());
    return rectified ? y : activated(y);
  }
#endif
  if (!s.batched) return activated(at::addmm(bias, x, weight.t()));
  return activated(at::baddbmm(
      bias, s.shared ? x.unsqueeze(0).expand({s.networks, s.rows, x.size(1)}) : x, weight));
}

inline at::Tensor layer_weight_gradient(const at::Tensor& x, const at::Tensor& weight,
                                        const at::Tensor& gradient) {
  const auto s = sizes_of_layer(x, weight);
#if RETAIN_HAS_AVX2_TARGET
  if (small_product(s, {&x, &weight, &gradient})) {
    const auto made = at::empty(weight.sizes(), x.options());
    const auto *from = x.data_ptr<float>(), *g = gradient.data_ptr<float>();
    auto* to = made.data_ptr<float>();
    if (!s.batched)
      product_avx2(s.outputs, s.inputs, s.rows, {g, 1, s.outputs}, from, to);
    else
      for (std::int64_t k = 0; k < s.networks; ++k)
        product_avx2(s.inputs, s.outputs, s.rows,
                     {from + (s.shared ? 0 : k * s.rows * s.inputs), 1, s.inputs},
                     g + k * s.rows * s.outputs, to + k * s.inputs * s.outputs);
    return made;
  }
#endif
  if (!s.batched) return gradient.t().mm(x);
  return (s.shared ? x.t().unsqueeze(0).expand({s.networks, s.inputs, s.rows}) : x.transpose(1, 2))
      .bmm(gradient);
}

inline at::Tensor layer_input_gradient(const at::Tensor& x, const at::Tensor& weight,
                                       const at::Tensor& gradient) {
  const auto s = sizes_of_layer(x, weight);
#if RETAIN_HAS_AVX2_TARGET
  if (small_product(s, {&x, &weight, &gradient})) {
    const auto made = at::empty(x.sizes(), x.options());
    const auto *w = weight.data_ptr<float>(), *g = gradient.data_ptr<float>();
    auto* to = made.data_ptr<float>();
    if (!s.batched) {
      product_avx2(s.rows, s.inputs, s.outputs, {g, s.outputs, 1}, w, to);
    } else {
      const auto turned = at::empty({s.outputs, s.inputs}, x.options());
      for (std::int64_t k = 0; k < s.networks; ++k) {
        transpose(w + k * s.inputs * s.outputs, s.inputs, s.outputs, turned.data_ptr<float>());
        product_avx2(s.rows, s.inputs, s.outputs, {g + k * s.rows * s.outputs, s.outputs, 1},
                     turned.data_ptr<float>(), to + (s.shared ? 0 : k * s.rows * s.inputs), nullptr,
                     s.shared && k > 0);
      }
    }
    return made;
  }
#endif
  if (!s.batched) return gradient.mm(weight);
  const auto each = gradient.bmm(weight.transpose(1, 2));
  return s.shared ? each.sum(0) : each;
}

inline at::Tensor layer_bias_gradient(const at::Tensor& gradient) {
  const bool batched = gradient.dim() == 3;
#if RETAIN_HAS_AVX2_TARGET
  if (gradient.numel() > 0 && gradient.numel() <= few_numbers && has_avx2() &&
      plain_floats({&gradient})) {
    const auto networks = batched ? gradient.size(0) : 1, rows = gradient.size(-2),
               columns = gradient.size(-1);
    const auto sums = batched ? at::empty({networks, 1, columns}, gradient.options())
                              : at::empty({columns}, gradient.options());
    for (std::int64_t k = 0; k < networks; ++k)
      column_sums_avx2(gradient.data_ptr<float>() + k * rows * columns, rows, columns,
                       sums.data_ptr<float>() + k * columns);
    return sums;
  }
#endif
  return batched ? gradient.sum(1, true) : gradient.sum(0);
}

/// Returns the gradient of the activation's input, from the gradient of its output and the layer's
/// output y.
inline at::Tensor layer_activation_gradient(const at::Tensor& gradient, const at::Tensor& y,
                                            activation_kind kind) {
#if RETAIN_HAS_AVX2_TARGET
  if (kind == activation_kind::relu && y.numel() <= few_numbers && gradient.sizes() == y.sizes() &&
      has_avx2() && plain_floats({&gradient, &y})) {
    const auto made = at::empty(y.sizes(), y.options());
    relu_gradient_avx2(gradient.data_ptr<float>(), y.data_ptr<float>(), y.numel(),
                       made.data_ptr<float>());
    return made;
  }
#endif
  return activation_gradient(gradient, y, kind);
}

}  // namespace retain::detail

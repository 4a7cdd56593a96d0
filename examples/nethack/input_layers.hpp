// SPDX-License-Identifier: MIT
// The two layers that read `features`: embeddings of the cells around the hero, and a sum of rows
// of a table.
#pragma once

#include "../common/vectorize.hpp"
#include "features.hpp"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cstdint>

namespace nethack {

/// A batch as a tensor: uint8 [n, sizeof(features)].
inline const features* as_features(const at::Tensor& observations) {
  return reinterpret_cast<const features*>(observations.data_ptr<std::uint8_t>());
}

namespace detail {

// torch's own Embedding and EmbeddingBag need index tensors. These cost as much to build as the
// sums themselves, and the backward passes handle one index at a time in a tensor iterator. These
// loops read the records directly.

RETAIN_VECTORIZE inline void gather_cells(const features* from, std::int64_t count,
                                          const float* embedding, int width, float* out) {
  for (std::int64_t i = 0; i < count; ++i)
    for (int cell = 0; cell < crop_cells; ++cell, out += width) {
      const float* row = embedding + from[i].tokens[static_cast<std::size_t>(cell)] * width;
      for (int k = 0; k < width; ++k) out[k] = row[k];
    }
}
RETAIN_VECTORIZE inline void scatter_cells(const features* from, std::int64_t count,
                                           const float* gradient, int width, float* into) {
  for (std::int64_t i = 0; i < count; ++i)
    for (int cell = 0; cell < crop_cells; ++cell, gradient += width) {
      float* row = into + from[i].tokens[static_cast<std::size_t>(cell)] * width;
      for (int k = 0; k < width; ++k) row[k] += gradient[k];
    }
}
RETAIN_VECTORIZE inline void sum_rows(const features* from, std::int64_t count, const float* table,
                                      int width, float* out) {
  for (std::int64_t i = 0; i < count; ++i, out += width) {
    for (int k = 0; k < width; ++k) out[k] = 0;
    for (std::size_t r = 0; r < from[i].row_count; ++r) {
      const float* row =
          table + static_cast<std::size_t>(from[i].rows[r]) * static_cast<std::size_t>(width);
      for (int k = 0; k < width; ++k) out[k] += row[k];
    }
  }
}
RETAIN_VECTORIZE inline void scatter_rows(const features* from, std::int64_t count,
                                          const float* gradient, int width, float* into) {
  for (std::int64_t i = 0; i < count; ++i, gradient += width)
    for (std::size_t r = 0; r < from[i].row_count; ++r) {
      float* row =
          into + static_cast<std::size_t>(from[i].rows[r]) * static_cast<std::size_t>(width);
      for (int k = 0; k < width; ++k) row[k] += gradient[k];
    }
}

using lookup_loop = void (*)(const features*, std::int64_t, const float*, int, float*);

/// out[i] = Forward(table, record i). The gradient of the table is dense, because optimizers and
/// penalties need a dense gradient.
template <lookup_loop Forward, lookup_loop Backward, int Copies>
struct lookup : torch::autograd::Function<lookup<Forward, Backward, Copies>> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& table,
                            const at::Tensor& observations) {
    context->save_for_backward({observations});
    context->saved_data["rows"] = table.size(0);
    const auto width = table.size(1);
    auto out =
        at::empty({observations.size(0), Copies * width}, table.options().requires_grad(false));
    Forward(as_features(observations), observations.size(0), table.data_ptr<float>(),
            static_cast<int>(width), out.template data_ptr<float>());
    return out;
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    const auto observations = context->get_saved_variables()[0];
    const auto gradient = gradients[0].contiguous();
    const auto width = gradient.size(1) / Copies;
    auto table = at::zeros({context->saved_data["rows"].toInt(), width}, gradient.options());
    Backward(as_features(observations), observations.size(0), gradient.template data_ptr<float>(),
             static_cast<int>(width), table.template data_ptr<float>());
    return {table, at::Tensor()};
  }
};

}  // namespace detail

/// The embeddings of the cells around the hero, one after the other: [n, crop_cells · width].
inline at::Tensor embed_crop(const at::Tensor& embedding, const at::Tensor& observations) {
  return detail::lookup<detail::gather_cells, detail::scatter_cells, crop_cells>::apply(
      embedding, observations);
}

/// The sum of the rows of `table` that a record lists: [n, width].
inline at::Tensor sum_of_rows(const at::Tensor& table, const at::Tensor& observations) {
  return detail::lookup<detail::sum_rows, detail::scatter_rows, 1>::apply(table, observations);
}

}  // namespace nethack

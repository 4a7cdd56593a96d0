// SPDX-License-Identifier: MIT
// Computes sum_n (gradient of sample n)^2 for one parameter from what graph_walk captured, without
// storing all gradients. For a layer that is used once per sample, sum_n (g_n a_n^T)^2 = (G o G)^T
// (A o A). If a sample has several rows (time steps, positions), they are summed before squaring.
#pragma once

#include <retain/importance/graph_walk.hpp>

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

namespace retain::detail {

/// How the rows of a flattened batch belong to N samples of K rows each.
enum class row_order { sample_major, time_major };

/// The relative tolerance of the checks of row orders, for what rounding can make.
inline double rows_tolerance(const at::Tensor& parameter) {
  return parameter.scalar_type() == at::kDouble  ? 1e-9
         : parameter.scalar_type() == at::kFloat ? 1e-4
                                                 : 5e-2;
}

/// Returns the patches [n, C kh kw, L] of images [n, C, H, W] that a convolution reads, in the
/// order of at::im2col. im2col starts one kernel per image on a GPU; this function makes one copy.
inline at::Tensor patches_of(const at::Tensor& images, at::IntArrayRef kernel,
                             at::IntArrayRef dilation, at::IntArrayRef padding,
                             at::IntArrayRef stride) {
  const auto padded =
      at::constant_pad_nd(images, {padding[1], padding[1], padding[0], padding[0]}).contiguous();
  const auto places = [&](std::size_t d) {
    return (padded.size(static_cast<std::int64_t>(d) + 2) - dilation[d] * (kernel[d] - 1) - 1) /
               stride[d] +
           1;
  };
  const std::int64_t n = images.size(0), channels = images.size(1), rows = places(0),
                     columns = places(1);
  const auto step = padded.strides();
  return padded
      .as_strided({n, channels, kernel[0], kernel[1], rows, columns},
                  {step[0], step[1], dilation[0] * step[2], dilation[1] * step[3],
                   stride[0] * step[2], stride[1] * step[3]})
      .reshape({n, channels * kernel[0] * kernel[1], rows * columns});
}

class per_sample_squares {
 public:
  /// `budget` is the largest number of elements of an intermediate tensor. One sample is always
  /// processed, even if it needs more.
  per_sample_squares(const std::vector<parameter_use>& uses, const at::Tensor& parameter,
                     std::int64_t samples, row_order order, std::int64_t budget)
      : uses_(uses), parameter_(parameter), samples_(samples), order_(order), budget_(budget) {}

  /// Whether these uses can be processed together and their rows can be divided among the samples.
  static bool supported(const std::vector<parameter_use>& uses, const at::Tensor& parameter,
                        std::int64_t samples) {
    if (uses.empty()) return false;
    for (const auto& use : uses) {
      const bool additive = is_vector(use.kind) && is_vector(uses[0].kind);
      if (!additive && use.kind != uses[0].kind) return false;
      if (use.kind == use_kind::matrix && use.transposed != uses[0].transposed) return false;
      if (use.kind == use_kind::convolution && uses.size() > 1) return false;
      if (use.gradient->defined() && rows_of(use) % samples != 0) return false;
      // The vector was also broadcast along the last dimension, for example one offset for all
      // logits.
      if (is_vector(use.kind) && !is_image(use.kind) && use.gradient->defined() &&
          use.gradient->size(-1) != parameter.numel())
        return false;
    }
    return true;
  }
  /// Whether the order of rows matters.
  static bool ambiguous(const std::vector<parameter_use>& uses, std::int64_t samples) {
    return samples > 1 && std::any_of(uses.begin(), uses.end(), [&](const auto& use) {
             return use.gradient->defined() && rows_of(use) != samples;
           });
  }

  /// Returns the number of rows per sample of each use, or -1 if no gradient arrived. Batches with
  /// equal numbers have the same layout, so their rows are in the same order.
  static std::vector<std::int64_t> rows_a_sample(const std::vector<parameter_use>& uses,
                                                 std::int64_t samples) {
    std::vector<std::int64_t> rows;
    for (const auto& use : uses)
      rows.push_back(use.gradient->defined() ? rows_of(use) / samples : -1);
    return rows;
  }

  /// Whether the rows of a use belong to the samples in this order. `plain` is the gradient of the
  /// sum of scores. The use holds the gradient of the weighted sum, with one of `weights` [N] per
  /// sample. If the order is right, plain times the sample's weight equals the gradient of the
  /// weighted sum. Waits for the device.
  static bool belong(const parameter_use& use, const at::Tensor& plain, const at::Tensor& weights,
                     row_order order, double tolerance) {
    if (!plain.defined() || plain.numel() == 0) return true;
    const bool by_sample = order == row_order::sample_major;
    const std::int64_t samples = weights.size(0), k = rows_of(use) / samples;
    const auto rows = [&](const at::Tensor& g) {
      return g.reshape({by_sample ? samples : k, by_sample ? k : samples, -1}).to(at::kDouble);
    };
    const at::Tensor expected =
        rows(plain) *
        weights.view({by_sample ? samples : 1, by_sample ? 1 : samples, 1}).to(plain.device());
    return (expected - rows(*use.gradient)).norm().item<double>() <=
           tolerance * expected.norm().item<double>();
  }

  /// Whether no use has a gradient in this pass.
  static bool unreached(const std::vector<parameter_use>& uses) {
    return std::none_of(uses.begin(), uses.end(),
                        [](const auto& use) { return use.gradient->defined(); });
  }
  /// Whether the gradient of every use is 0 or undefined, so that the parameter's gradient is 0.
  /// Waits for the device.
  static bool silent(const std::vector<parameter_use>& uses) {
    const auto speaks = [](const at::Tensor& g) { return g.ne(0).any().item<bool>(); };
    // Most gradients have a number other than 0 in their first row.
    return std::none_of(uses.begin(), uses.end(), [&](const auto& use) {
      const at::Tensor& g = *use.gradient;
      return g.defined() && g.numel() > 0 && (speaks(g[0]) || speaks(g));
    });
  }

  /// Whether the sum equals (G o G)^T (A o A). Then several passes with the same inputs can sum
  /// G o G first.
  static bool separable(const std::vector<parameter_use>& uses, std::int64_t samples) {
    return uses.size() == 1 && uses[0].kind == use_kind::matrix && uses[0].gradient->defined() &&
           rows_of(uses[0]) == samples;
  }
  /// squared_gradients returns G o G, [N, out], of a separable sum. product_of_squares returns the
  /// sum over all samples from these squares.
  at::Tensor squared_gradients() const { return flat_rows(*uses_[0].gradient).square(); }
  at::Tensor product_of_squares(const at::Tensor& gradients) const {
    return product(gradients, flat_rows(uses_[0].input).square());
  }

  /// Returns the sum over samples [from, to), in the parameter's shape. Half types are summed in
  /// float.
  at::Tensor sum(std::int64_t from, std::int64_t to) const {
    if (separable(uses_, samples_))
      return product(flat_rows(*uses_[0].gradient).slice(0, from, to).square(),
                     flat_rows(uses_[0].input).slice(0, from, to).square());
    auto total =
        at::zeros(parameter_.sizes(), parameter_.options().requires_grad(false).dtype(real()));
    if (unreached(uses_)) return total;
    switch (uses_[0].kind) {
      case use_kind::matrix: matrix(total, from, to); break;
      case use_kind::convolution: convolution(total, from, to); break;
      case use_kind::lookup: lookup(total, from, to); break;
      default: vector(total, from, to); break;
    }
    return total;
  }

 private:
  static bool is_vector(use_kind kind) {
    return kind == use_kind::bias || kind == use_kind::scale || kind == use_kind::convolution_bias;
  }
  static bool is_image(use_kind kind) {
    return kind == use_kind::convolution || kind == use_kind::convolution_bias;
  }

  static std::int64_t rows_of(const parameter_use& use) {
    const at::Tensor& g = *use.gradient;
    if (is_image(use.kind)) return g.size(0);
    return g.size(-1) == 0 ? 0 : g.numel() / g.size(-1);
  }

  at::ScalarType real() const {
    return parameter_.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  }

  /// Reshapes [R, ...] to [N, K, ...].
  at::Tensor by_sample(const at::Tensor& rows) const {
    auto sizes = rows.sizes().vec();
    const std::int64_t k = sizes[0] / samples_;
    sizes.insert(sizes.begin(), order_ == row_order::sample_major ? samples_ : k);
    sizes[1] = order_ == row_order::sample_major ? k : samples_;
    const auto view = rows.reshape(sizes);
    return order_ == row_order::sample_major ? view : view.transpose(0, 1);
  }
  at::Tensor flat_rows(const at::Tensor& x) const { return x.reshape({-1, x.size(-1)}).to(real()); }

  /// Returns G^T A, in the parameter's shape.
  at::Tensor product(const at::Tensor& gradients, const at::Tensor& inputs) const {
    return uses_[0].transposed ? gradients.t().mm(inputs) : inputs.t().mm(gradients);
  }

  std::vector<const parameter_use*> active() const {
    std::vector<const parameter_use*> list;
    for (const auto& use : uses_)
      if (use.gradient->defined()) list.push_back(&use);
    return list;
  }

  void matrix(at::Tensor& total, std::int64_t from, std::int64_t to) const {
    std::vector<at::Tensor> gradients, inputs;
    for (const auto* use : active()) {
      gradients.push_back(by_sample(flat_rows(*use->gradient)).slice(0, from, to));
      inputs.push_back(by_sample(flat_rows(use->input)).slice(0, from, to));
    }
    // [n, K, out] and [n, K, in]. For a parameter stored as [in, out] the two are swapped.
    at::Tensor left = gradients.size() == 1 ? gradients[0] : at::cat(gradients, 1);
    at::Tensor right = inputs.size() == 1 ? inputs[0] : at::cat(inputs, 1);
    if (!uses_[0].transposed) std::swap(left, right);
    add_squared_products(total, left.transpose(1, 2), right);
  }

  void vector(at::Tensor& total, std::int64_t from, std::int64_t to) const {
    at::Tensor per_sample;
    for (const auto* use : active()) {
      at::Tensor g = is_image(use->kind) ? use->gradient->flatten(2).sum(2).to(real())
                                         : flat_rows(*use->gradient);
      if (use->kind == use_kind::scale) g = g * flat_rows(use->input);
      const at::Tensor summed = by_sample(g).slice(0, from, to).sum(1);
      per_sample = per_sample.defined() ? per_sample + summed : summed;
    }
    total.add_(per_sample.square().sum(0));
  }

  void convolution(at::Tensor& total, std::int64_t from, std::int64_t to) const {
    const auto& use = uses_[0];
    auto kernel = use.kernel, stride = use.stride, padding = use.padding, dilation = use.dilation;
    at::Tensor images = by_sample(use.input).slice(0, from, to),
               gradients = by_sample(*use.gradient).slice(0, from, to);
    if (kernel.size() == 1) {  // treat a 1-d convolution as a convolution of images of height 1
      images = images.unsqueeze(-2);
      gradients = gradients.unsqueeze(-2);
      for (auto* list : {&kernel, &stride, &dilation}) list->insert(list->begin(), 1);
      padding.insert(padding.begin(), 0);
    }
    const std::int64_t k = images.size(1), outputs = gradients.size(2), groups = use.groups;
    const std::int64_t positions = gradients.size(3) * gradients.size(4);
    const std::int64_t patch = images.size(2) * kernel[0] * kernel[1];
    auto flat = total.view({groups, outputs / groups, patch / groups});
    in_chunks(
        to - from, std::max(total.numel(), k * patch * positions),
        [&](std::int64_t a, std::int64_t b) {
          const std::int64_t n = b - a;
          const auto columns = patches_of(images.slice(0, a, b).flatten(0, 1).to(real()), kernel,
                                          dilation, padding, stride)
                                   .reshape({n, k, groups, patch / groups, positions});
          const auto g = gradients.slice(0, a, b).to(real()).reshape(
              {n, k, groups, outputs / groups, positions});
          // The product sums over positions and over the rows of a sample: [n, G, O/G, K L] times
          // [n, G, K L, P/G].
          const auto left =
              g.permute({0, 2, 3, 1, 4}).reshape({n, groups, outputs / groups, k * positions});
          const auto right =
              columns.permute({0, 2, 1, 4, 3}).reshape({n, groups, k * positions, patch / groups});
          if (!worth_tiling(flat[0])) {  // many small groups: one call for all groups
            flat.add_(at::bmm(left.flatten(0, 1), right.flatten(0, 1))
                          .square_()
                          .view({n, groups, outputs / groups, patch / groups})
                          .sum(0));
            return;
          }
          for (std::int64_t group = 0; group < groups; ++group) {
            auto part = flat[group];
            add_squared_products(part, left.select(1, group), right.select(1, group));
          }
        });
  }

  /// Sums the entries of one sample that read the same row of the table, then squares the sums.
  void lookup(at::Tensor& total, std::int64_t from, std::int64_t to) const {
    std::vector<at::Tensor> keys, values;
    const std::int64_t table = parameter_.size(0);
    for (const auto* use : active()) {
      at::Tensor g = flat_rows(*use->gradient), indices = use->input.reshape({-1}).to(at::kLong);
      const at::Tensor rows =
          use->rows.defined() ? use->rows : at::arange(g.size(0), indices.options());
      const std::int64_t k = g.size(0) / samples_;
      const at::Tensor sample =
          order_ == row_order::sample_major ? rows.div(k, "floor") : rows.remainder(samples_);
      at::Tensor kept = (sample >= from).logical_and(sample < to);
      if (use->padding_index >= 0) kept = kept.logical_and(indices != use->padding_index);
      const at::Tensor chosen = kept.nonzero().squeeze(1);
      keys.push_back((sample * table + indices).index_select(0, chosen));
      values.push_back(g.index_select(0, rows.index_select(0, chosen)));
    }
    const at::Tensor key = at::cat(keys), value = at::cat(values);
    const auto [distinct, position, counts] = at::_unique2(key, true, true, false);
    auto sums = at::zeros({distinct.size(0), value.size(1)}, value.options());
    sums.index_add_(0, position, value);
    total.index_add_(0, distinct.remainder(table), sums.square_());
  }

  /// Whether a sum of squares is on the CPU and large enough to be computed tile by tile.
  static bool worth_tiling(const at::Tensor& total) {
    constexpr std::int64_t small = std::int64_t{1} << 13;
    return total.device().is_cpu() && total.numel() >= small;
  }

  /// Computes total += sum_n (left[n] right[n])^2, elementwise, for left [n, M, K] and right
  /// [n, K, P].
  void add_squared_products(at::Tensor& total, const at::Tensor& left,
                            const at::Tensor& right) const {
    const std::int64_t samples = left.size(0), rows = left.size(1), columns = right.size(2);
    if (!worth_tiling(total)) {
      in_chunks(samples, rows * columns, [&](std::int64_t a, std::int64_t b) {
        total.add_(at::bmm(left.slice(0, a, b), right.slice(0, a, b)).square_().sum(0));
      });
      return;
    }
    // Each tile of rows is squared while it is in the second-level cache. Groups of `together`
    // samples are summed separately, because a longer chain of float additions would lose the last
    // values.
    constexpr std::int64_t tile_elements = std::int64_t{1} << 15, together = 256;
    const std::int64_t height = std::max<std::int64_t>(1, std::min(rows, tile_elements / columns));
    const auto products = at::empty({height, columns}, total.options()),
               sums = at::empty({height, columns}, total.options());
    for (std::int64_t row = 0; row < rows; row += height) {
      const std::int64_t count = std::min(height, rows - row);
      auto part = total.narrow(0, row, count), product = products.narrow(0, 0, count),
           sum = sums.narrow(0, 0, count);
      for (std::int64_t n = 0; n < samples; ++n) {
        at::mm_out(product, left[n].narrow(0, row, count), right[n]);
        if (n % together == 0)
          at::mul_out(sum, product, product);
        else
          sum.addcmul_(product, product);
        if (n % together == together - 1 || n + 1 == samples) part.add_(sum);
      }
    }
  }

  /// Calls `body` for ranges of samples. The range is so small that the intermediate tensors are
  /// within the budget and, on a CPU, stay in the second-level cache.
  template <class Body>
  void in_chunks(std::int64_t count, std::int64_t elements_each, Body body) const {
    constexpr std::int64_t cached = std::int64_t{1} << 17;
    const std::int64_t most = parameter_.device().is_cpu() ? std::min(cached, budget_) : budget_;
    const std::int64_t chunk =
        std::max<std::int64_t>(1, most / std::max<std::int64_t>(1, elements_each));
    for (std::int64_t a = 0; a < count; a += chunk) body(a, std::min(count, a + chunk));
  }

  const std::vector<parameter_use>& uses_;
  const at::Tensor& parameter_;
  std::int64_t samples_;
  row_order order_;
  std::int64_t budget_;
};

}  // namespace retain::detail

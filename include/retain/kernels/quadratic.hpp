// SPDX-License-Identifier: MIT
// sum_i scale_i * (sum F_i (theta_i - anchor_i)^2 + constant_i) and its gradient, over a list of
// parameters: the arithmetic of every weight-space penalty. On the CPU and on NVIDIA GPUs it is one
// pass over theta, anchor, F and .grad, bound by memory bandwidth; elsewhere and for strided or
// sparse tensors it is LibTorch's own operations. Nothing waits for a device.
#pragma once

#include <retain/kernels/cuda_quadratic.hpp>
#include <retain/kernels/instruction_set.hpp>
#include <retain/kernels/joined.hpp>
#include <retain/kernels/plain_floats.hpp>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <type_traits>
#include <utility>
#include <vector>

namespace retain::detail {

/// One parameter of the penalty. `importance` is undefined where every weight counts 1.
struct quadratic_item {
  at::Tensor theta;
  at::Tensor anchor;
  at::Tensor importance;
  double scale = 1.0;
  double constant = 0.0;
};

// the CUDA kernel knows them by these numbers
enum class gradient_mode { none = 0, add = 1, assign = 2 };

template <class T>
using accumulate_t = std::conditional_t<std::is_same_v<T, double>, double, float>;

#if RETAIN_HAS_AVX2_TARGET
/// Eight numbers of a half type to float, and sixteen back, to the nearest.
RETAIN_AVX2_EXACT inline __m256 widen(const at::Half* from) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
RETAIN_AVX2_EXACT inline __m256 widen(const at::BFloat16* from) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(
      _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))), 16));
}
RETAIN_AVX2_EXACT inline void narrow(__m256 low, __m256 high, at::Half* to) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph(low, _MM_FROUND_TO_NEAREST_INT));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to + 8),
                   _mm256_cvtps_ph(high, _MM_FROUND_TO_NEAREST_INT));
}
RETAIN_AVX2_EXACT inline __m256i bfloat16_bits(__m256 x) {
  const __m256i bits = _mm256_castps_si256(x),
                odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_srli_epi32(
      _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF))), 16);
  return _mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7FC0),
                            _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q)));
}
RETAIN_AVX2_EXACT inline void narrow(__m256 low, __m256 high, at::BFloat16* to) {
  const __m256i packed =
      _mm256_permute4x64_epi64(_mm256_packus_epi32(bfloat16_bits(low), bfloat16_bits(high)), 0xD8);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), packed);
}
#endif

/// One element of the pass below: adds F d^2 to `sum`.
template <bool HasImportance, gradient_mode Mode, class T, class F>
RETAIN_INLINE_BODY void quadratic_element(const T* __restrict theta, const T* __restrict anchor,
                                          const F* __restrict importance, T* __restrict g,
                                          accumulate_t<T> factor, std::int64_t i,
                                          accumulate_t<T>& sum) {
  using real = accumulate_t<T>;
  const real d = static_cast<real>(theta[i]) - static_cast<real>(anchor[i]);
  real w = d;
  if constexpr (HasImportance) w *= static_cast<real>(importance[i]);
  sum += w * d;
  if constexpr (Mode == gradient_mode::add)
    g[i] = static_cast<T>(static_cast<real>(g[i]) + factor * w);
  if constexpr (Mode == gradient_mode::assign) g[i] = static_cast<T>(factor * w);
}

inline constexpr std::int64_t quadratic_block = 2048;
inline constexpr int quadratic_lanes = 32;

/// Returns sum F d^2 over n elements, d = theta - anchor, and adds (or assigns) factor * F * d to
/// g. Blocks of partial sums keep float accurate and let the compiler use vector registers.
template <bool HasImportance, gradient_mode Mode, class T, class F>
RETAIN_INLINE_BODY double quadratic_body(const T* __restrict theta, const T* __restrict anchor,
                                         const F* __restrict importance, T* __restrict g,
                                         accumulate_t<T> factor, std::int64_t n) {
  using real = accumulate_t<T>;
  double total = 0;
  for (std::int64_t start = 0; start < n; start += quadratic_block) {
    const std::int64_t end = std::min(n, start + quadratic_block);
    real sums[quadratic_lanes] = {};
    std::int64_t i = start;
    for (; i + quadratic_lanes <= end; i += quadratic_lanes)
      for (int lane = 0; lane < quadratic_lanes; ++lane)
        quadratic_element<HasImportance, Mode>(theta, anchor, importance, g, factor, i + lane,
                                               sums[lane]);
    for (; i < end; ++i)
      quadratic_element<HasImportance, Mode>(theta, anchor, importance, g, factor, i, sums[0]);
    real sum = 0;
    for (const real lane : sums) sum += lane;
    total += static_cast<double>(sum);
  }
  return total;
}

#if RETAIN_HAS_AVX2_TARGET
/// Float and double are bound by memory whatever the registers. The same bits as without.
template <bool HasImportance, gradient_mode Mode, class T, class F>
RETAIN_AVX2_EXACT double quadratic_avx2(const T* theta, const T* anchor, const F* importance, T* g,
                                        accumulate_t<T> factor, std::int64_t n) {
  return quadratic_body<HasImportance, Mode>(theta, anchor, importance, g, factor, n);
}

/// Half types are bound by their conversions, which stay in registers here. The same bits as
/// without.
template <bool HasImportance, gradient_mode Mode, class T>
  requires(sizeof(T) == 2)
RETAIN_AVX2_EXACT double quadratic_avx2(const T* theta, const T* anchor, const float* importance,
                                        T* g, float factor, std::int64_t n) {
  const __m256 pull = _mm256_set1_ps(factor);
  double total = 0;
  for (std::int64_t start = 0; start < n; start += quadratic_block) {
    const std::int64_t end = std::min(n, start + quadratic_block);
    __m256 sums[quadratic_lanes / 8];
    for (auto& sum : sums) sum = _mm256_setzero_ps();
    std::int64_t i = start;
    for (; i + quadratic_lanes <= end; i += quadratic_lanes) {
#pragma GCC unroll 2
      for (int pair = 0; pair < 2; ++pair) {
        __m256 force[2];
#pragma GCC unroll 2
        for (int k = 0; k < 2; ++k) {
          const std::int64_t j = i + 16 * pair + 8 * k;
          const __m256 d = _mm256_sub_ps(widen(theta + j), widen(anchor + j));
          __m256 w = d;
          if constexpr (HasImportance) w = _mm256_mul_ps(d, _mm256_loadu_ps(importance + j));
          sums[2 * pair + k] = _mm256_add_ps(sums[2 * pair + k], _mm256_mul_ps(w, d));
          force[k] = _mm256_mul_ps(pull, w);
          if constexpr (Mode == gradient_mode::add)
            force[k] = _mm256_add_ps(widen(g + j), force[k]);
        }
        if constexpr (Mode != gradient_mode::none) narrow(force[0], force[1], g + i + 16 * pair);
      }
    }
    float lanes[quadratic_lanes];
    for (int k = 0; k < quadratic_lanes / 8; ++k) _mm256_storeu_ps(lanes + 8 * k, sums[k]);
    for (; i < end; ++i)
      quadratic_element<HasImportance, Mode>(theta, anchor, importance, g, factor, i, lanes[0]);
    float sum = 0;
    for (const float lane : lanes) sum += lane;
    total += static_cast<double>(sum);
  }
  return total;
}
#endif

template <bool HasImportance, gradient_mode Mode, class T, class F>
double quadratic_kernel(const T* theta, const T* anchor, const F* importance, T* g,
                        accumulate_t<T> factor, std::int64_t n) {
#if RETAIN_HAS_AVX2_TARGET
  if (has_avx2())
    return quadratic_avx2<HasImportance, Mode>(theta, anchor, importance, g, factor, n);
#endif
  return quadratic_body<HasImportance, Mode>(theta, anchor, importance, g, factor, n);
}

/// The type that numbers of a parameter's type are computed in.
inline at::ScalarType real_type(const at::Tensor& theta) {
  return theta.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

/// Whether a tensor's memory holds its numbers.
inline bool in_memory(const at::Tensor& tensor) {
  return tensor.layout() == at::kStrided && !tensor.is_neg() && !tensor._is_zerotensor();
}

/// Whether the tensors' elements lie in memory one for one, so that a kernel may walk them as flat
/// arrays.
inline bool flat_alike(const at::Tensor& a, const at::Tensor& b) {
  return in_memory(b) && b.device() == a.device() && a.strides() == b.strides();
}
inline bool fusible(const quadratic_item& item, const at::Tensor& gradient) {
  const auto type = item.theta.scalar_type();
  const bool known =
      type == at::kFloat || type == at::kDouble || type == at::kHalf || type == at::kBFloat16;
  const bool reduced = type == at::kHalf || type == at::kBFloat16;
  return known && in_memory(item.theta) && item.theta.is_non_overlapping_and_dense() &&
         flat_alike(item.theta, item.anchor) && item.anchor.scalar_type() == type &&
         (!item.importance.defined() ||
          (flat_alike(item.theta, item.importance) &&
           item.importance.scalar_type() == (reduced ? at::kFloat : type))) &&
         (!gradient.defined() ||
          (flat_alike(item.theta, gradient) && gradient.scalar_type() == type));
}

template <gradient_mode Mode, class T>
double fused_chunk(const quadratic_item& item, const at::Tensor& gradient, double factor,
                   std::int64_t from, std::int64_t count) {
  using importance_t = accumulate_t<T>;
  const T* theta = static_cast<const T*>(item.theta.data_ptr()) + from;
  const T* anchor = static_cast<const T*>(item.anchor.data_ptr()) + from;
  T* g = Mode == gradient_mode::none ? nullptr : static_cast<T*>(gradient.data_ptr()) + from;
  const auto f = static_cast<accumulate_t<T>>(factor * item.scale);
  if (item.importance.defined())
    return quadratic_kernel<true, Mode>(
        theta, anchor, static_cast<const importance_t*>(item.importance.data_ptr()) + from, g, f,
        count);
  return quadratic_kernel<false, Mode>(theta, anchor, static_cast<const importance_t*>(nullptr), g,
                                       f, count);
}

template <gradient_mode Mode>
double fused_chunk(const quadratic_item& item, const at::Tensor& gradient, double factor,
                   std::int64_t from, std::int64_t count) {
  switch (item.theta.scalar_type()) {
    case at::kDouble: return fused_chunk<Mode, double>(item, gradient, factor, from, count);
    case at::kHalf: return fused_chunk<Mode, at::Half>(item, gradient, factor, from, count);
    case at::kBFloat16: return fused_chunk<Mode, at::BFloat16>(item, gradient, factor, from, count);
    default: return fused_chunk<Mode, float>(item, gradient, factor, from, count);
  }
}

/// The same for one tensor through LibTorch's operations; the value stays on the device, in
/// float64. Half types are worked on in float, as in the kernel: importances of 1e-8 would vanish
/// in them.
template <gradient_mode Mode>
at::Tensor unfused(const quadratic_item& item, at::Tensor& gradient, double factor) {
  const auto type = item.theta.scalar_type(), real = real_type(item.theta);
  const at::Tensor d = item.theta.detach().to(real) - item.anchor.to(real);
  const at::Tensor w = item.importance.defined() ? d * item.importance : d;
  if constexpr (Mode == gradient_mode::add) {
    if (gradient.layout() != at::kStrided) gradient = gradient.to_dense();
    if (type == real)
      gradient.add_(w, factor * item.scale);
    else
      gradient.add_((w * (factor * item.scale)).to(type));
  }
  if constexpr (Mode == gradient_mode::assign) gradient = (w * (factor * item.scale)).to(type);
  return at::mul(w, d).sum(at::kDouble) * item.scale;
}

#if RETAIN_HAS_CUDA_KERNELS
/// The same for tensors of one GPU and one type. Undefined, with nothing done, where there is no
/// kernel.
template <gradient_mode Mode>
at::Tensor fused_on_cuda(const std::vector<quadratic_item>& items,
                         const std::vector<std::size_t>& which,
                         const std::vector<at::Tensor>& gradients, double factor) {
  std::vector<cuda_quadratic_tensor> tensors;
  for (const auto i : which) {
    const auto& item = items[i];
    tensors.push_back({item.theta.data_ptr(), item.anchor.data_ptr(),
                       item.importance.defined() ? item.importance.data_ptr() : nullptr,
                       Mode == gradient_mode::none ? nullptr : gradients[i].data_ptr(),
                       item.theta.numel(), item.scale, 0, 0});
  }
  const auto& first = items[which.front()].theta;
  return cuda_quadratic(std::move(tensors), first.scalar_type(), static_cast<int>(Mode), factor,
                        first.device());
}
#endif

/// sum_i scale_i (sum F_i d_i^2 + constant_i) as a 0-dim float64 tensor. `gradients[i]`, where
/// gradients are asked for, receives factor * scale_i * F_i d_i; where that is added, their version
/// counters tell of it as after an operation in place. The order of the sums does not depend on the
/// number of threads.
template <gradient_mode Mode>
at::Tensor quadratic_pass(const std::vector<quadratic_item>& items,
                          std::vector<at::Tensor>& gradients, double factor) {
  struct chunk {
    std::size_t item;
    std::int64_t from, count;
  };
  constexpr std::int64_t chunk_size = 1 << 18;
  std::vector<chunk> chunks;
  std::vector<std::size_t> fused;
  at::Tensor elsewhere, none;
  const auto add_elsewhere = [&](const at::Tensor& value) {
    elsewhere = elsewhere.defined() ? elsewhere + value.to(elsewhere.device()) : value;
  };
  const auto gradient_of = [&](std::size_t i) -> at::Tensor& {
    return Mode == gradient_mode::none ? none : gradients[i];
  };
  const auto by_operations = [&](std::size_t i) {
    add_elsewhere(unfused<Mode>(items[i], gradient_of(i), factor));
  };
#if RETAIN_HAS_CUDA_KERNELS
  std::map<std::pair<c10::DeviceIndex, at::ScalarType>, std::vector<std::size_t>> on_gpus;
#endif
  for (std::size_t i = 0; i < items.size(); ++i) {
    const auto& theta = items[i].theta;
    const bool fits = fusible(items[i], gradient_of(i));
    if (fits && theta.device().is_cpu()) {
      fused.push_back(i);
      for (std::int64_t from = 0, n = theta.numel(); from < n; from += chunk_size)
        chunks.push_back({i, from, std::min(chunk_size, n - from)});
#if RETAIN_HAS_CUDA_KERNELS
    } else if (fits && theta.is_cuda()) {
      on_gpus[{theta.device().index(), theta.scalar_type()}].push_back(i);
#endif
    } else {
      by_operations(i);
    }
  }
#if RETAIN_HAS_CUDA_KERNELS
  for (const auto& [place, which] : on_gpus)
    if (const auto value = fused_on_cuda<Mode>(items, which, gradients, factor); value.defined()) {
      add_elsewhere(value);
      fused.insert(fused.end(), which.begin(), which.end());
    } else {
      std::for_each(which.begin(), which.end(), by_operations);
    }
#endif
  std::vector<double> partial(chunks.size());
  at::parallel_for(
      0, static_cast<std::int64_t>(chunks.size()), 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t c = begin; c < end; ++c) {
          const auto& [i, from, count] = chunks[static_cast<std::size_t>(c)];
          partial[static_cast<std::size_t>(c)] =
              items[i].scale * fused_chunk<Mode>(items[i], gradient_of(i), factor, from, count);
        }
      });
  if constexpr (Mode == gradient_mode::add)
    for (const auto i : fused) written(gradients[i]);
  double sum = 0;
  for (const double value : partial) sum += value;
  for (const auto& item : items) sum += item.scale * item.constant;
  if (elsewhere.defined()) return sum == 0 ? elsewhere : elsewhere + sum;
  return at::scalar_tensor(sum, at::TensorOptions().dtype(at::kDouble));
}

/// F d of one parameter by LibTorch's operations, in float or double.
inline at::Tensor quadratic_force(const at::Tensor& theta, const at::Tensor& anchor,
                                  const at::Tensor& importance) {
  const at::Tensor d = theta.to(real_type(theta)) - anchor.to(real_type(theta));
  return importance.defined() ? d * importance : d;
}

/// strength * sum_i scale_i (sum F_i d_i^2 + constant_i) as a node of the graph: its backward is
/// the same single pass. With create_graph the backward is made of LibTorch's operations instead,
/// which can be differentiated again.
struct quadratic_function : torch::autograd::Function<quadratic_function> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, at::TensorList thetas,
                            std::vector<quadratic_item> items, double strength) {
    torch::autograd::variable_list saved;
    std::vector<double> scales;
    for (auto& item : items) {
      saved.insert(saved.end(), {item.theta, item.anchor, item.importance});
      scales.push_back(item.scale);
    }
    context->save_for_backward(std::move(saved));
    context->saved_data["scales"] = std::move(scales);
    context->saved_data["strength"] = strength;
    std::vector<at::Tensor> none;
    return quadratic_pass<gradient_mode::none>(items, none, 0.0)
        .mul_(strength)
        .to(real_type(thetas[0]));
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list incoming) {
    const auto saved = context->get_saved_variables();
    const auto scales = context->saved_data["scales"].toDoubleVector();
    const double strength = context->saved_data["strength"].toDouble();
    torch::autograd::variable_list gradients;
    // On the CPU the incoming gradient is a number at hand; elsewhere reading it would wait for the
    // device. A half type overflows before that number has made it small.
    const bool at_hand = incoming[0].device().is_cpu();
    const bool half = std::any_of(saved.begin(), saved.end(), [](const at::Tensor& t) {
      return t.defined() && t.element_size() == 2;
    });
    if (at::GradMode::is_enabled() || (half && !at_hand) || !may_join_own_types(incoming[0])) {
      for (std::size_t i = 0; i < scales.size(); ++i) {
        const at::Tensor& theta = saved[3 * i];
        const at::Tensor force = quadratic_force(theta, saved[3 * i + 1], saved[3 * i + 2]);
        gradients.push_back((force * (2.0 * strength * scales[i]) * incoming[0].to(theta.device()))
                                .to(theta.scalar_type()));
      }
      gradients.resize(scales.size() + 2);  // the items and the strength have none
      return gradients;
    }
    std::vector<quadratic_item> items;
    for (std::size_t i = 0; i < scales.size(); ++i) {
      items.push_back({saved[3 * i], saved[3 * i + 1], saved[3 * i + 2], scales[i]});
      gradients.push_back(at::empty_like(saved[3 * i]));
    }
    quadratic_pass<gradient_mode::assign>(
        items, gradients, 2.0 * strength * (at_hand ? incoming[0].item<double>() : 1.0));
    if (!at_hand)
      for (auto& gradient : gradients) gradient.mul_(incoming[0].to(gradient.device()));
    gradients.resize(scales.size() + 2);
    return gradients;
  }
};

/// The same with a graph: as one node, or one operation after the other for those who listen to
/// each (a trace, a forward-mode derivative).
inline at::Tensor quadratic_loss(std::vector<quadratic_item> items, double strength) {
  std::vector<at::Tensor> thetas;
  for (const auto& item : items) thetas.push_back(item.theta);
  if (may_join_own_types(thetas))
    return quadratic_function::apply(at::TensorList(thetas), std::move(items), strength);
  at::Tensor sum;
  double constant = 0;
  for (const auto& item : items) {
    const at::Tensor d = quadratic_force(item.theta, item.anchor, {}),
                     force = item.importance.defined() ? d * item.importance : d;
    const at::Tensor value = (force * d).sum(at::kDouble) * item.scale;
    sum = sum.defined() ? sum + value.to(sum.device()) : value;
    constant += item.scale * item.constant;
  }
  return ((constant == 0 ? sum : sum + constant) * strength).to(real_type(thetas[0]));
}

}  // namespace retain::detail

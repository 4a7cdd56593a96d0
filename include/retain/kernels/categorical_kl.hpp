// SPDX-License-Identifier: MIT
// KL(p || q) between rows of logits and its gradient, with one pass over memory forward and one
// backward, for float32 on processors with AVX2 and on NVIDIA GPUs:
//
//     KL = sum_a P_a (log P_a - log Q_a)
//     dKL/dq = Q - P,   dKL/dp_a = P_a (log P_a - log Q_a - KL)
//
// LibTorch's operations pass over the batch eight to twelve times and store most intermediate
// results for the backward pass. Here a row stays in the first-level cache, and five numbers per
// row are stored. The backward pass computes the exponentials again, which is faster than loading
// them.
#pragma once

#include <retain/kernels/cuda_kl.hpp>
#include <retain/kernels/instruction_set.hpp>
#include <retain/kernels/joined.hpp>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

namespace retain::detail {

/// The stored numbers of one row: the largest logits, the logarithms of sum exp(p - top_p) and sum
/// exp(q - top_q), and the divergence. The largest logit and the logarithm are stored separately,
/// because their sum would lose digits for logits far from 0.
struct kl_row {
  float top_p, log_p, top_q, log_q, divergence;
};
inline constexpr std::int64_t kl_numbers = 5;
static_assert(sizeof(kl_row) == kl_numbers * sizeof(float));

#if RETAIN_HAS_AVX2_TARGET

/// Returns e^x to about one unit in the last place (Cephes' polynomial). Returns 0 below -87, where
/// the result is not a normal float. x must be at most 88.
RETAIN_AVX2 inline __m256 exp_avx2(__m256 x) {
  const __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)),
                                   _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f),
                                    _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), x));
  __m256 y = _mm256_set1_ps(1.9875691500e-4f);
  for (const float c :
       {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
    y = _mm256_fmadd_ps(y, r, _mm256_set1_ps(c));
  y = _mm256_add_ps(_mm256_fmadd_ps(y, _mm256_mul_ps(r, r), r), _mm256_set1_ps(1.0f));
  const __m256i power =
      _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
  // true for NaN, so that NaN propagates
  const __m256 normal = _mm256_cmp_ps(x, _mm256_set1_ps(-87.0f), _CMP_NLT_UQ);
  return _mm256_and_ps(_mm256_mul_ps(y, _mm256_castsi256_ps(power)), normal);
}

RETAIN_AVX2 inline float sum_avx2(__m256 x) {
  __m128 y = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  y = _mm_add_ps(y, _mm_movehl_ps(y, y));
  return _mm_cvtss_f32(_mm_add_ss(y, _mm_movehdup_ps(y)));
}
RETAIN_AVX2 inline float max_avx2(__m256 x) {
  __m128 y = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  y = _mm_max_ps(y, _mm_movehl_ps(y, y));
  return _mm_cvtss_f32(_mm_max_ss(y, _mm_movehdup_ps(y)));
}

/// Loads the next eight logits, with minus infinity after the last action.
RETAIN_AVX2 inline __m256 logits_avx2(const float* from, std::int64_t left) {
  if (left >= 8) return _mm256_loadu_ps(from);
  const __m256i lanes = lanes_avx2(left);
  const __m256 none = _mm256_set1_ps(-std::numeric_limits<float>::infinity());
  return _mm256_blendv_ps(none, _mm256_maskload_ps(from, lanes), _mm256_castsi256_ps(lanes));
}
RETAIN_AVX2 inline void store_avx2(float* to, std::int64_t left, __m256 values) {
  if (left >= 8)
    _mm256_storeu_ps(to, values);
  else
    _mm256_maskstore_ps(to, lanes_avx2(left), values);
}

RETAIN_AVX2 inline kl_row kl_forward_avx2(const float* p, const float* q, std::int64_t actions) {
  __m256 most_p = _mm256_set1_ps(-std::numeric_limits<float>::infinity()), most_q = most_p;
  for (std::int64_t a = 0; a < actions; a += 8) {
    // The running maximum is the second operand: max_ps returns its second operand if one operand
    // is NaN. The sums below then propagate the NaN.
    most_p = _mm256_max_ps(logits_avx2(p + a, actions - a), most_p);
    most_q = _mm256_max_ps(logits_avx2(q + a, actions - a), most_q);
  }
  const float top_p = max_avx2(most_p), top_q = max_avx2(most_q);
  const __m256 shift_p = _mm256_set1_ps(top_p), shift_q = _mm256_set1_ps(top_q);
  __m256 sum_p = _mm256_setzero_ps(), sum_q = sum_p, product = sum_p;
  for (std::int64_t a = 0; a < actions; a += 8) {
    const std::int64_t left = actions - a;
    const __m256 x = _mm256_sub_ps(logits_avx2(p + a, left), shift_p),
                 y = _mm256_sub_ps(logits_avx2(q + a, left), shift_q);
    const __m256 of_p = exp_avx2(x);
    sum_p = _mm256_add_ps(sum_p, of_p);
    sum_q = _mm256_add_ps(sum_q, exp_avx2(y));
    // 0 (log 0 - ...) is 0
    const __m256 counts = _mm256_cmp_ps(of_p, _mm256_setzero_ps(), _CMP_NEQ_UQ);
    product = _mm256_fmadd_ps(of_p, _mm256_and_ps(_mm256_sub_ps(x, y), counts), product);
  }
  const float total_p = sum_avx2(sum_p), total_q = sum_avx2(sum_q);
  const float log_p = std::log(total_p), log_q = std::log(total_q);
  return {top_p, log_p, top_q, log_q, sum_avx2(product) / total_p - (log_p - log_q)};
}

/// Computes the gradients of one row times `incoming`. A null pointer means that a gradient is not
/// needed.
RETAIN_AVX2 inline void kl_backward_avx2(const float* p, const float* q, std::int64_t actions,
                                         kl_row row, float incoming, float* gradient_p,
                                         float* gradient_q) {
  const __m256 top_p = _mm256_set1_ps(row.top_p), top_q = _mm256_set1_ps(row.top_q);
  const __m256 log_p = _mm256_set1_ps(row.log_p), log_q = _mm256_set1_ps(row.log_q);
  const __m256 divergence = _mm256_set1_ps(row.divergence), scale = _mm256_set1_ps(incoming);
  for (std::int64_t a = 0; a < actions; a += 8) {
    const std::int64_t left = actions - a;
    const __m256 x = _mm256_sub_ps(_mm256_sub_ps(logits_avx2(p + a, left), top_p), log_p);
    const __m256 y = _mm256_sub_ps(_mm256_sub_ps(logits_avx2(q + a, left), top_q), log_q);
    const __m256 of_p = exp_avx2(x);
    if (gradient_q)
      store_avx2(gradient_q + a, left, _mm256_mul_ps(scale, _mm256_sub_ps(exp_avx2(y), of_p)));
    if (!gradient_p) continue;
    const __m256 counts = _mm256_cmp_ps(of_p, _mm256_setzero_ps(), _CMP_NEQ_UQ);
    const __m256 excess = _mm256_and_ps(_mm256_sub_ps(_mm256_sub_ps(x, y), divergence), counts);
    store_avx2(gradient_p + a, left, _mm256_mul_ps(scale, _mm256_mul_ps(of_p, excess)));
  }
}

#endif  // RETAIN_HAS_AVX2_TARGET

template <class Row>
void each_kl_row(std::int64_t rows, std::int64_t actions, Row row) {
  at::parallel_for(0, rows, std::max<std::int64_t>(1, 16384 / actions),
                   [&](std::int64_t begin, std::int64_t end) {
                     for (std::int64_t r = begin; r < end; ++r) row(r);
                   });
}

/// Returns KL(p || q) of logits [..., A], one number per row, as a node of the autograd graph.
struct kl_function : torch::autograd::Function<kl_function> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& p,
                            const at::Tensor& q) {
    const auto left = p.contiguous(), right = q.contiguous();
    const auto actions = left.size(-1), rows = left.numel() / actions;
    const auto divergences =
        at::empty(p.sizes().slice(0, static_cast<std::size_t>(p.dim() - 1)), p.options());
    const auto kept = at::empty({rows, kl_numbers}, p.options());
    [[maybe_unused]] const auto *of_p = static_cast<const float*>(left.data_ptr()),
                                *of_q = static_cast<const float*>(right.data_ptr());
    [[maybe_unused]] auto* result = static_cast<float*>(divergences.data_ptr());
#if RETAIN_HAS_CUDA_KERNELS
    if (left.is_cuda())
      cuda_kl("kl_forward",
              {of_p, of_q, static_cast<float*>(kept.data_ptr()), result, nullptr, nullptr, nullptr,
               rows, actions, 0},
              left.device());
#endif
#if RETAIN_HAS_AVX2_TARGET
    auto* keep = static_cast<kl_row*>(kept.data_ptr());
    if (left.device().is_cpu())
      each_kl_row(rows, actions, [&](std::int64_t r) {
        keep[r] = kl_forward_avx2(of_p + r * actions, of_q + r * actions, actions);
        result[r] = keep[r].divergence;
      });
#endif
    context->save_for_backward({p, q, kept});
    return divergences;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list incoming) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &p = saved[0], &q = saved[1];
    const bool wants_p = context->needs_input_grad(0), wants_q = context->needs_input_grad(1);
    torch::autograd::variable_list gradients(2);
    // create_graph: use LibTorch's operations, which can be differentiated again
    if (at::GradMode::is_enabled()) {
      const auto log_p = at::log_softmax(p, -1), log_q = at::log_softmax(q, -1);
      const auto scale = incoming[0].unsqueeze(-1), probabilities = log_p.exp();
      const auto difference = (log_p - log_q).masked_fill(probabilities == 0, 0);
      if (wants_p)
        gradients[0] =
            scale * probabilities * (difference - (probabilities * difference).sum(-1, true));
      if (wants_q) gradients[1] = scale * (log_q.exp() - probabilities);
      return gradients;
    }
    // The incoming gradient of a mean is one number for all rows.
    const auto strides = incoming[0].strides();
    const bool one_for_all =
        std::all_of(strides.begin(), strides.end(), [](std::int64_t step) { return step == 0; });
    const auto left = p.contiguous(), right = q.contiguous(),
               scales = one_for_all ? incoming[0] : incoming[0].contiguous();
    const auto actions = left.size(-1), rows = left.numel() / actions;
    [[maybe_unused]] const std::int64_t step = one_for_all ? 0 : 1;
    [[maybe_unused]] const auto *of_p = static_cast<const float*>(left.data_ptr()),
                                *of_q = static_cast<const float*>(right.data_ptr());
    [[maybe_unused]] const auto* scale = static_cast<const float*>(scales.data_ptr());
    const auto place = [&](bool wanted, at::Tensor& gradient, const at::Tensor& like) {
      if (wanted) gradient = at::empty(like.sizes(), like.options());
      return wanted ? static_cast<float*>(gradient.data_ptr()) : nullptr;
    };
    [[maybe_unused]] auto *to_p = place(wants_p, gradients[0], left),
                          *to_q = place(wants_q, gradients[1], right);
#if RETAIN_HAS_CUDA_KERNELS
    if (left.is_cuda())
      cuda_kl("kl_backward",
              {of_p, of_q, static_cast<float*>(saved[2].data_ptr()), nullptr, scale, to_p, to_q,
               rows, actions, step},
              left.device());
#endif
#if RETAIN_HAS_AVX2_TARGET
    const auto* kept = static_cast<const kl_row*>(saved[2].data_ptr());
    if (left.device().is_cpu())
      each_kl_row(rows, actions, [&](std::int64_t r) {
        const auto at = r * actions;
        kl_backward_avx2(of_p + at, of_q + at, actions, kept[r], scale[r * step],
                         to_p ? to_p + at : nullptr, to_q ? to_q + at : nullptr);
      });
#endif
    return gradients;
  }
};

/// Returns whether kl_function supports these logits. They must have the same shape.
inline bool fuses_kl(const at::Tensor& p, const at::Tensor& q) {
  // The memory of a lazily negated tensor does not hold its values.
  const auto fits = [](const at::Tensor& x) {
    return x.scalar_type() == at::kFloat && !x.is_neg() && !x._is_zerotensor();
  };
  if (p.device() != q.device() || p.numel() == 0 || !fits(p) || !fits(q) ||
      !may_join_own_types({p, q}))
    return false;
#if RETAIN_HAS_CUDA_KERNELS
  if (p.is_cuda()) return has_cuda_kl(p.size(-1), p.device());
#endif
#if RETAIN_HAS_AVX2_TARGET
  if (p.device().is_cpu()) return has_avx2();
#endif
  return false;
}

}  // namespace retain::detail

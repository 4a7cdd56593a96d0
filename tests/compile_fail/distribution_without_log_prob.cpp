// SPDX-License-Identifier: MIT
// expect: this distribution has no log_prob: give it `at::Tensor log_prob.const
#include <retain/fisher.hpp>

namespace own {
struct bernoulli {
  at::Tensor logits;
  at::Tensor entropy() const { return logits; }
  at::Tensor sample() const { return logits > 0; }
  at::Tensor mode() const { return logits > 0; }
};
at::Tensor kl(const bernoulli& p, const bernoulli& q) { return p.logits - q.logits; }
}  // namespace own

retain::fisher estimate(const std::vector<at::Tensor>& model, const at::Tensor& states) {
  return retain::estimate_fisher(
      model, states, [&](const at::Tensor& o) { return own::bernoulli{o.matmul(model[0])}; });
}

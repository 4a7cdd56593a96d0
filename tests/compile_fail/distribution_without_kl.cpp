// SPDX-License-Identifier: MIT
// expect: this distribution has no kl: write `at::Tensor kl.const D& p, const D& q.`
#include <retain/fisher.hpp>

namespace own {
struct bernoulli {
  at::Tensor logits;
  at::Tensor log_prob(const at::Tensor& actions) const { return at::log_sigmoid(logits * actions); }
  at::Tensor entropy() const { return logits; }
  at::Tensor sample() const { return logits > 0; }
  at::Tensor mode() const { return logits > 0; }
};

}  // namespace own

retain::fisher estimate(const std::vector<at::Tensor>& model, const at::Tensor& states) {
  return retain::estimate_fisher(
      model, states, [&](const at::Tensor& o) { return own::bernoulli{o.matmul(model[0])}; });
}

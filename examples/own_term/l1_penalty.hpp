// SPDX-License-Identifier: MIT
// A weight term of your own: the L1 distance to the pre-trained weights.
//
//     loss = c * sum_i |theta_i - theta*_i|
#pragma once

#include <retain/term.hpp>

class l1_penalty {
 public:
  static constexpr const char* name = "l1";

  template <retain::parameter_source M>
  l1_penalty(const M& model, retain::strength_schedule strength)
      : anchors_(name, model), strength_(std::move(strength)) {}

  at::Tensor loss(const retain::parameter_list& model) const {
    if (strength_.value() == 0) return at::zeros({});
    at::Tensor sum = at::zeros({});
    for (const auto& p : anchors_.match(model)) sum = sum + (p.theta - p.anchor).abs().sum();
    return sum * strength_.value();
  }
  at::Tensor add_gradient(const retain::parameter_list& model) const {
    return retain::add_gradient_of_loss(*this, model);
  }
  retain::strength_schedule& schedule() { return strength_; }

  void save_state(retain::state& out, const std::string& prefix) const {
    strength_.save_state(out, prefix + "strength.");
    anchors_.save_state(out, prefix);
  }
  void load_state(const retain::state& in, const std::string& prefix) {
    auto strength = strength_;  // so that nothing changes if a part does not fit
    strength.load_state(in, prefix + "strength.");
    anchors_.load_state(in, prefix);
    strength_ = std::move(strength);
  }

 private:
  retain::anchors anchors_;
  retain::strength_schedule strength_;
};

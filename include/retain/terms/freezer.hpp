// SPDX-License-Identifier: MIT
// Freezes parts of a model: parameters by name, and modules that have only frozen parameters.
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/core/parameters.hpp>
#include <retain/core/patterns.hpp>

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace retain::detail {

/// The model itself (with an empty name) or one of its submodules, with access to its training
/// flag.
struct module_handle {
  std::string name;
  std::function<bool()> training;
  std::function<void(bool)> train;  // includes all submodules
};

template <class M>
concept has_modules = requires(M& model) {
  model.is_training();
  model.train(true);
  model.named_modules();
};

/// Returns the model and all its submodules; each module comes before its children. Returns an
/// empty list if the model is not a module.
template <class M>
std::vector<module_handle> modules_of(M& model) {
  if constexpr (requires {
                  model.ptr();
                  requires has_modules<std::remove_reference_t<decltype(*model.ptr())>>;
                }) {
    return modules_of(*model.ptr());
  } else if constexpr (requires {
                         requires has_modules<std::remove_reference_t<decltype(*model)>>;
                       }) {
    return modules_of(*model);
  } else if constexpr (has_modules<M>) {
    std::vector<module_handle> modules;
    modules.push_back(
        {"", [&model] { return model.is_training(); }, [&model](bool on) { model.train(on); }});
    if constexpr (requires { model.named_modules("", false); }) {
      for (const auto& item : model.named_modules("", false)) {
        auto module = item.value();
        modules.push_back({item.key(), [module] { return module->is_training(); },
                           [module](bool on) { module->train(on); }});
      }
    } else {  // torch::jit::Module
      for (const auto& item : model.named_modules()) {
        auto module = item.value;
        if (!item.name.empty())
          modules.push_back({item.name, [module] { return module.is_training(); },
                             [module](bool on) mutable { module.train(on); }});
      }
    }
    return modules;
  } else {
    static_assert(!has_modules<std::remove_const_t<M>>,
                  "a const module cannot be put into eval mode: pass the module itself, a holder "
                  "or a pointer");
    return {};
  }
}

/// Freezes and unfreezes parts of one model. Holds a reference to the model, which must outlive
/// this object.
class freezer {
 public:
  template <parameter_source M>
  freezer(const char* kind, M& model) : kind_(kind) {
    for (auto& [name, tensor] : parameters(model))
      parameters_.push_back({std::move(name), tensor, tensor.requires_grad(), false});
    for (const auto& [name, tensor] : all_names(model))
      for (const auto& p : parameters_)
        if (p.tensor.is_same(tensor) && p.name != name) tied_.emplace_back(name, p.name);
    for (auto& handle : modules_of(model)) {
      module_entry entry{std::move(handle), {}, false, true};
      const auto prefix = entry.handle.name.empty() ? std::string() : entry.handle.name + ".";
      for (std::size_t i = 0; i < parameters_.size(); ++i)
        if (parameters_[i].name.compare(0, prefix.size(), prefix) == 0)
          entry.parameters.push_back(i);
      modules_.push_back(std::move(entry));
    }
  }

  /// Throws config_error for a pattern that matches nothing. Also throws if a pattern matches a
  /// shared tensor by another name than its first name, because the tensor would not be frozen.
  void check(const std::vector<std::string>& patterns) const {
    std::vector<std::string> names;
    for (const auto& p : parameters_) names.push_back(p.name);
    for (const auto& m : modules_)
      if (!m.handle.name.empty()) names.push_back(m.handle.name);
    // Another name of a tied parameter gets an error of its own below.
    for (const auto& [name, first] : tied_) names.push_back(name);
    check_patterns(kind_, "pattern", patterns, names, "parameter and no module");
    for (const auto& pattern : patterns) {
      for (const auto& [name, first] : tied_)
        if (covers(pattern, name) && !covered(patterns, first))
          throw config_error(concat(kind_, ": the pattern '", pattern, "' covers '", name,
                                    "', which is the same tensor as '", first,
                                    "': use its first name '", first, "'"));
    }
  }

  /// Freezes everything that matches `patterns` but not `except`, and unfreezes everything else.
  /// Returns whether this changed anything.
  bool set(const std::vector<std::string>& patterns, const std::vector<std::string>& except = {}) {
    const auto wanted = [&](const std::string& name) {
      return covered(patterns, name) && !covered(except, name);
    };
    bool changed = false;
    for (auto& p : parameters_) {
      const bool freeze = wanted(p.name);
      changed = changed || freeze != p.frozen;
      if (p.frozen && !freeze) {
        p.tensor.requires_grad_(p.trainable);
        // `.grad` may exist if other code called requires_grad_() before a backward()
        p.tensor.mutable_grad() = at::Tensor();
      }
      p.frozen = freeze;
    }
    std::vector<bool> before, released;
    for (auto& m : modules_) {
      // A module with parameters that are not frozen still learns, and keeps its own mode.
      bool freeze = m.parameters.empty() ? !m.handle.name.empty() && wanted(m.handle.name) : true;
      for (const auto i : m.parameters) freeze = freeze && parameters_[i].frozen;
      for (const auto& above : modules_) freeze = freeze || (above.frozen && m.lies_in(above));
      before.push_back(m.handle.training());
      released.push_back(m.frozen && !freeze);
      // train() may have changed the mode of a frozen module
      if (freeze && (!m.frozen || before.back())) m.was_training = before.back();
      changed = changed || freeze != m.frozen;
      m.frozen = freeze;
    }
    // train() also changes the children. They come later in the list and get their own mode then.
    const bool model_trains = modules_.empty() || modules_[0].frozen || released[0] || before[0];
    for (std::size_t i = 0; i < modules_.size(); ++i) {
      auto& m = modules_[i];
      const bool mode = m.frozen ? false : released[i] ? m.was_training && model_trains : before[i];
      if (m.handle.training() != mode) m.handle.train(mode);
    }
    enforce();
    return changed;
  }

  /// Freezes the same parts again. Call this after train() or requires_grad_() has changed them.
  void enforce() {
    for (auto& p : parameters_) {
      if (!p.frozen) continue;
      p.tensor.requires_grad_(false);
      if (p.tensor.grad().defined()) p.tensor.mutable_grad() = at::Tensor();
    }
    for (auto& m : modules_) {
      if (!m.frozen || !m.handle.training()) continue;
      m.was_training = true;
      m.handle.train(false);
    }
  }

  std::vector<std::string> frozen() const {
    std::vector<std::string> names;
    for (const auto& p : parameters_)
      if (p.frozen) names.push_back(p.name);
    return names;
  }

 private:
  struct parameter_entry {
    std::string name;
    at::Tensor tensor;
    bool trainable;  // before anything was frozen
    bool frozen;
  };
  struct module_entry {
    module_handle handle;
    std::vector<std::size_t> parameters;  // includes the parameters of all submodules
    bool frozen, was_training;

    bool lies_in(const module_entry& other) const {
      const auto& above = other.handle.name;
      return handle.name.size() > above.size() &&
             (above.empty() || handle.name.compare(0, above.size() + 1, above + ".") == 0);
    }
  };

  const char* kind_;
  std::vector<parameter_entry> parameters_;
  // another name of a parameter, and its first name
  std::vector<std::pair<std::string, std::string>> tied_;
  std::vector<module_entry> modules_;  // each module before its children
};

}  // namespace retain::detail

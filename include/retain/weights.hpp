// SPDX-License-Identifier: MIT
// Weights of a policy from Python, and back: safetensors files of any program.
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/nearest.hpp>
#include <retain/base/text.hpp>
#include <retain/core/module_tensors.hpp>
#include <retain/core/parameters.hpp>
#include <retain/files/weights_file.hpp>

#include <ATen/ATen.h>
#include <ATen/MemoryOverlap.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

namespace retain {

/// A rule for names: a name that begins with `from` begins with `to` instead. An empty `from`
/// matches every name and so adds a prefix. A list of rules is applied in turn: each rule sees the
/// result of the rules before it, and changes a name once at most. For example, {"module.", ""} and
/// then {"_orig_mod.", ""} turn "module._orig_mod.actor.0.weight" into "actor.0.weight".
struct rename_prefix {
  std::string from, to;
};

struct load_weights_options {
  /// applied to the names of the file; the results must be the names of the model
  std::vector<rename_prefix> renames = {};
  /// patterns of names in the model that the file need not have, for example a new critic; these
  /// tensors keep their values if the file does not have them
  std::vector<std::string> allow_missing = {};
  /// patterns of names in the file, after the renames, that the model need not have
  std::vector<std::string> allow_extra = {};
};

/// What `load_weights` did.
struct loaded_weights {
  std::vector<std::string> loaded;               ///< names of the model, in its order
  std::map<std::string, std::string> converted;  ///< loaded names whose type in the file is another
                                                 ///< ("F64", "F32", "F16", "BF16")
  std::vector<std::string> missing;              ///< names of the model that were left as they are
  std::vector<std::string> extra;  ///< names of the file, before the renames, that were ignored
  std::map<std::string, std::string> metadata;  ///< the texts of the file
};

namespace detail {

inline std::string renamed(std::string name, const std::vector<rename_prefix>& rules) {
  for (const auto& [from, to] : rules)
    if (name.compare(0, from.size(), from) == 0) name.replace(0, from.size(), to);
  return name;
}

/// Lists all parameters and buffers, each under all its names. Throws config_error if two different
/// tensors have the same name.
template <parameter_source M>
parameter_list all_named_tensors(const char* who, const M& model) {
  auto list = all_names(model);
  std::unordered_set<std::string> names;
  for (const auto& entry : list) names.insert(entry.name);
  for (auto& buffer : buffers_of(model, true)) {
    if (!names.insert(buffer.name).second)
      throw config_error(concat(who, ": a parameter and a buffer are both named '", buffer.name,
                                "': rename one of them"));
    list.push_back(std::move(buffer));
  }
  return list;
}

/// Returns why a tensor cannot be written in place, or an empty text.
inline const char* why_read_only(const at::Tensor& tensor) {
  if (tensor.layout() != at::kStrided) return "is not dense";
  if (tensor.is_meta()) return "is on the meta device and has no memory";
  if (tensor.is_inference() && !c10::InferenceMode::is_enabled())
    return "was created in inference mode";
  if (at::has_internal_overlap(tensor) == at::MemOverlap::Yes)
    return "is an expanded view, whose elements share memory";
  return "";
}

/// Returns the rename that turns the first name into the second one by another prefix, as advice.
/// Returns an empty text if the last parts of the names differ.
inline std::string rename_advice(std::string_view from, std::string_view to) {
  std::size_t same = 0;
  while (same < std::min(from.size(), to.size()) &&
         from[from.size() - 1 - same] == to[to.size() - 1 - same])
    ++same;
  // whole parts only, unless one name ends here
  const auto whole = [](std::string_view name, std::size_t rest) {
    return rest == name.size() || name[name.size() - rest - 1] == '.';
  };
  while (same > 0 && !(whole(from, same) && whole(to, same))) --same;
  if (same == 0) return {};
  return concat("; try the rename {\"", from.substr(0, from.size() - same), "\", \"",
                to.substr(0, to.size() - same), "\"}");
}

/// A tensor of the file and the tensors of the model.
class weights_match {
 public:
  weights_match(const std::string& path, const weights_header& header, parameter_list model,
                const load_weights_options& options)
      : path_(path), model_(std::move(model)) {
    for (const auto& pattern : options.allow_missing)
      if (std::none_of(model_.begin(), model_.end(),
                       [&](const auto& entry) { return covers(pattern, entry.name); }))
        throw config_error(
            concat("load_weights: allow_missing's '", pattern, "' matches no name of the model"));
    take_names(header, options.renames);
    std::unordered_map<const at::TensorImpl*, bool> found;
    for (const auto& [name, tensor] : model_)
      found[tensor.unsafeGetTensorImpl()] |= by_name_.count(name) > 0;
    for (const auto& entry : model_) {
      const auto stored = by_name_.find(entry.name);
      if (stored != by_name_.end()) {
        used_.insert(stored->second);
        check(*stored->second, entry);
        pairs_.emplace_back(stored->second, &entry);
      } else if (!found[entry.tensor.unsafeGetTensorImpl()]) {
        (covered(options.allow_missing, entry.name) ? left_ : absent_).push_back(&entry);
      }
    }
    for (const auto& stored : header.tensors)
      if (!used_.count(&stored))
        (covered(options.allow_extra, names_[&stored]) ? ignored_ : surplus_).push_back(&stored);
  }

  /// Throws one error with everything that does not fit.
  void require_fit() const {
    std::string text;
    std::vector<std::string_view> candidates;
    for (const auto* stored : surplus_) candidates.push_back(names_.at(stored));
    constexpr std::size_t most_advised = 20;  // a search through all names for each
    for (std::size_t i = 0; i < absent_.size(); ++i) {
      text += concat("\n  not in the file: '", absent_[i]->name, "' ",
                     shape_text(absent_[i]->tensor.sizes()));
      if (i < most_advised) text += advice(*absent_[i], candidates);
    }
    for (const auto* stored : surplus_)
      text += concat("\n  not in the model: '", stored->name, "' ", shape_text(stored->shape),
                     names_.at(stored) == stored->name
                         ? std::string()
                         : concat(" (renamed to '", names_.at(stored), "')"));
    text += misfits_;
    if (text.empty() && pairs_.empty()) text = "\n  the file and the model have no name in common";
    if (text.empty()) return;
    text =
        concat("load_weights: '", path_, "' does not fit the model, and nothing was loaded:", text);
    if (!surplus_.empty() || !absent_.empty())
      text += "\nUse renames, allow_missing (parts that the file does not have) or allow_extra "
              "(parts that the model does not have)";
    if (!misfits_.empty() && only_shapes_ && surplus_.empty() && absent_.empty())
      throw shape_error(text);
    throw state_error(text);
  }

  /// Reads all tensors, then writes them. Throws before the first write.
  loaded_weights load(weights_file& file) {
    loaded_weights report;
    const at::NoGradGuard no_grad;
    std::vector<std::pair<at::Tensor, at::Tensor>> writes;  // each tensor of the model once
    std::unordered_map<const at::TensorImpl*, std::pair<std::size_t, std::string>> first;
    std::string text;
    for (const auto& [stored, entry] : pairs_) {
      const at::Tensor& target = entry->tensor;
      const at::Tensor read = file.read(*stored), value = read.to(target.scalar_type());
      if (value.scalar_type() != read.scalar_type()) {
        report.converted[entry->name] = element_types[stored->type].name;
        if (at::isinf(value.to(at::kDouble)).ne(at::isinf(read.to(at::kDouble))).any().item<bool>())
          text +=
              concat("\n  '", entry->name, "' has values that are too large for ", target.dtype());
      }
      const auto [before, fresh] =
          first.try_emplace(target.unsafeGetTensorImpl(), writes.size(), entry->name);
      if (fresh)
        writes.emplace_back(target, value);
      else if (value.nbytes() > 0 && std::memcmp(writes[before->second.first].second.data_ptr(),
                                                 value.data_ptr(), value.nbytes()) != 0)
        text += concat("\n  '", before->second.second, "' and '", entry->name,
                       "' are one tensor in the model, but differ in the file");
      report.loaded.push_back(entry->name);
    }
    if (!text.empty())
      throw state_error(concat("load_weights: '", path_,
                               "' does not fit the model, and nothing was loaded:", text));
    for (auto& [target, value] : writes) value = value.to(target.device());
    for (auto& [target, value] : writes) target.copy_(value);
    for (const auto* entry : left_) report.missing.push_back(entry->name);
    for (const auto* stored : ignored_) report.extra.push_back(stored->name);
    report.metadata = file.header().texts;
    return report;
  }

 private:
  void take_names(const weights_header& header, const std::vector<rename_prefix>& rules) {
    for (const auto& stored : header.tensors) {
      const auto& name = names_[&stored] = renamed(stored.name, rules);
      const auto [other, fresh] = by_name_.emplace(name, &stored);
      if (!fresh)
        throw state_error(concat("load_weights: the renames turn both '", other->second->name,
                                 "' and '", stored.name, "' of '", path_, "' into '", name, "'"));
    }
  }

  void check(const stored_tensor& stored, const named_tensor& entry) {
    const at::Tensor& target = entry.tensor;
    if (const std::string_view why = why_read_only(target); !why.empty()) {
      misfits_ += concat("\n  cannot be written: the model's '", entry.name, "' ", why);
      only_shapes_ = false;
    }
    if (target.sizes() != at::IntArrayRef(stored.shape))
      misfits_ += concat("\n  other shape: '", entry.name, "' is ", shape_text(stored.shape),
                         " in the file and ", shape_text(target.sizes()), " in the model");
    const bool known = stored.type < scalar_types.size();
    if (!known || (scalar_types[stored.type] != target.scalar_type() &&
                   !(at::isFloatingType(scalar_types[stored.type]) &&
                     at::isFloatingType(target.scalar_type())))) {
      misfits_ +=
          concat("\n  other type: '", entry.name, "' is ",
                 known ? element_types[stored.type].name : stored.other_type, " in the file and ",
                 target.dtype(), " in the model; only floating-point types are converted");
      only_shapes_ = false;
    }
  }

  std::string advice(const named_tensor& absent,
                     const std::vector<std::string_view>& candidates) const {
    std::vector<std::string_view> alike;
    for (std::size_t i = 0; i < candidates.size(); ++i)
      if (at::IntArrayRef(surplus_[i]->shape) == absent.tensor.sizes())
        alike.push_back(candidates[i]);
    const bool same_shape = !alike.empty();
    if (!same_shape) alike = candidates;
    const auto nearest = nearest_name(absent.name, alike);
    if (nearest == alike.size()) return {};
    return concat(
        " (the file has '", alike[nearest], "'",
        same_shape ? " of this shape" + rename_advice(alike[nearest], absent.name) : std::string(),
        ")");
  }

  const std::string& path_;
  const parameter_list model_;
  std::unordered_map<const stored_tensor*, std::string> names_;  // after the renames
  std::unordered_map<std::string, const stored_tensor*> by_name_;
  std::unordered_set<const stored_tensor*> used_;
  std::vector<std::pair<const stored_tensor*, const named_tensor*>> pairs_;
  std::vector<const named_tensor*> absent_, left_;
  std::vector<const stored_tensor*> surplus_, ignored_;
  std::string misfits_;
  bool only_shapes_ = true;
};

}  // namespace detail

/// Loads the weights of a safetensors file of any program into a model, by name: parameters and
/// buffers. In Python, this turns a checkpoint of torch.save into such a file:
///
///     import torch, safetensors.torch
///     weights = torch.load("agent.pt", map_location="cpu")  # the state_dict; often a part of it
///     safetensors.torch.save_file({name: w.clone().contiguous() for name, w in weights.items()},
///                                 "agent.safetensors")
///
/// Then in C++:
///
///     retain::load_weights(*policy, "agent.safetensors",
///                          {.renames = {{"module.", ""}, {"actor.", "policy_head."}},
///                           .allow_missing = {"value_head"},   // the file has no critic
///                           .allow_extra = {"log_std"}});      // the model has no such parameter
///
/// Without options, the file and the model must have the same names and shapes. Patterns match the
/// name of a tensor or of a module that contains it, for example "value_head". A tensor that an
/// `allow_` pattern covers is still loaded if both have it.
///
/// Writes in place: optimizers, holders and views of the tensors see the new values, and version
/// counters increase. Frozen parameters are written too. Gradients and the state of optimizers do
/// not change. Load before you create a teacher or a penalty, because they copy the weights.
///
/// Types: F64, F32, F16 and BF16 are converted to the floating-point type of the model, and the
/// report says so. A value that becomes infinite is an error. Other types (I64, I32, I16, I8, U8,
/// BOOL) must be those of the model. A tensor that the model has under several names (a tied
/// weight) needs one of them; if the file has several, they must be equal.
///
/// Everything is checked and read before the first write. If it throws, the model has not changed.
/// This needs memory for a second copy of the weights. Throws one error that lists every tensor
/// that does not fit, with the nearest name and a rename to try: shape_error if only shapes differ,
/// otherwise state_error. Throws io_error if the file is missing, truncated, damaged, or no
/// safetensors file. A file has no checksum, so changed numbers are not detected. Throws
/// config_error if a pattern of allow_missing matches no name of the model, or if two tensors of
/// the model have the same name.
template <parameter_source M>
loaded_weights load_weights(const M& model, const std::string& path,
                            const load_weights_options& options = {}) {
  auto tensors = detail::all_named_tensors("load_weights", model);
  detail::weights_file file(path);
  detail::weights_match match(path, file.header(), std::move(tensors), options);
  match.require_fit();
  return match.load(file);
}

/// Writes the parameters and buffers of a model to a plain safetensors file, which every program
/// that knows the format reads. In Python:
///
///     policy.load_state_dict(safetensors.torch.load_file("policy.safetensors"))
///
/// The renames are applied to the names of the model. A tensor with several names (a tied weight)
/// is written under each of them. Tensors on another device are copied to the CPU one at a time.
/// The file is written under a temporary name and then renamed. It has no checksum; to resume a
/// run, use retain::save. Throws io_error if the file cannot be written or if the format does not
/// support a tensor. Throws config_error if two tensors get the same name.
template <parameter_source M>
void save_weights(const M& model, const std::string& path,
                  const std::vector<rename_prefix>& renames = {}) {
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  std::unordered_map<std::string, std::string> origins;
  for (const auto& [name, tensor] : detail::all_named_tensors("save_weights", model)) {
    const std::string& written = detail::renamed(name, renames);
    if (const auto [other, fresh] = origins.emplace(written, name); !fresh)
      throw config_error(detail::concat("save_weights: the renames turn both '", other->second,
                                        "' and '", name, "' into '", written, "'"));
    tensors.emplace_back(written, tensor);
  }
  detail::write_weights_file(path, tensors);
}

}  // namespace retain

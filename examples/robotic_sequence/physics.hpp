// SPDX-License-Identifier: MIT
// Owning wrappers of MuJoCo's models and simulations. Works with MuJoCo 2.2 and later. Models are
// read from a file, because the functions that read from memory differ between versions.
#pragma once

#include <array>
#include <cerrno>
#include <cstring>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include <stdlib.h>
#include <unistd.h>

#include <mujoco/mujoco.h>

#include "stages.hpp"

namespace robotic_sequence {

namespace detail {

/// A temporary file that exists as long as the object, in $TMPDIR or /tmp.
class temporary_file {
 public:
  explicit temporary_file(const std::string& text) {
    const char* folder = std::getenv("TMPDIR");
    path_ = std::string(folder != nullptr && *folder != '\0' ? folder : "/tmp") +
            "/robotic_sequence_XXXXXX.xml";
    const int file = mkstemps(path_.data(), 4);
    const bool written =
        file >= 0 && write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size());
    const std::string reason = std::strerror(errno);
    if (file >= 0) close(file);
    if (written) return;
    if (file >= 0) unlink(path_.c_str());
    throw std::runtime_error("cannot write " + path_ + " (" + reason +
                             "): set TMPDIR to a writable folder");
  }
  temporary_file(const temporary_file&) = delete;
  temporary_file& operator=(const temporary_file&) = delete;
  ~temporary_file() { unlink(path_.c_str()); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

struct model_deleter {
  void operator()(mjModel* model) const { mj_deleteModel(model); }
};
struct data_deleter {
  void operator()(mjData* data) const { mj_deleteData(data); }
};

}  // namespace detail

using model_pointer = std::unique_ptr<mjModel, detail::model_deleter>;
using data_pointer = std::unique_ptr<mjData, detail::data_deleter>;

/// Throws std::runtime_error with MuJoCo's message, which names the line and the element.
inline model_pointer read_model(const std::string& mjcf_text) {
  const detail::temporary_file file(mjcf_text);
  std::array<char, 1000> message{};
  model_pointer model(
      mj_loadXML(file.path().c_str(), nullptr, message.data(), static_cast<int>(message.size())));
  if (!model)
    throw std::runtime_error(std::string("MuJoCo does not accept the model: ") + message.data());
  return model;
}

/// A stage's model and the indices of its sites.
struct stage_model {
  model_pointer model;
  int tip = -1, object = -1;  ///< sites
};

/// Read once per process. Simulations share it and only read it.
inline const stage_model& model_of(stage_kind kind) {
  static const auto models = [] {
    std::map<stage_kind, stage_model> read;
    for (const auto each : all_stages) {
      stage_model made{.model = read_model(mjcf(each))};
      made.tip = mj_name2id(made.model.get(), mjOBJ_SITE, "tip");
      made.object = mj_name2id(made.model.get(), mjOBJ_SITE, "object");
      read.emplace(each, std::move(made));
    }
    return read;
  }();
  return models.at(kind);
}

}  // namespace robotic_sequence

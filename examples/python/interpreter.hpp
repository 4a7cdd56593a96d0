// SPDX-License-Identifier: MIT
// The Python interpreter inside a program: which one it is, and how it is called.
#pragma once

#include <array>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include <pybind11/embed.h>

namespace python {

namespace py = pybind11;

/// A failure in Python, in one line.
struct error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

namespace detail {

/// The interpreter of this process. It is started once and never ended, because extension modules
/// such as numpy cannot be loaded twice.
inline std::string& running() {
  static std::string executable;
  return executable;
}

inline std::string quoted(const std::string& text) {
  std::string result = "'";
  for (const char c : text) result += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return result + "'";
}

/// What a shell command prints on its standard output. Empty if it fails.
inline std::string output_of(const std::string& command) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> pipe(popen(command.c_str(), "r"), pclose);
  std::string text;
  std::array<char, 256> some{};
  if (pipe != nullptr)
    while (const auto size = std::fread(some.data(), 1, some.size(), pipe.get()))
      text.append(some.data(), size);
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

inline std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

inline const std::string built_with =
    std::to_string(PY_MAJOR_VERSION) + "." + std::to_string(PY_MINOR_VERSION);

}  // namespace detail

/// The program whose packages are used: `given`, or else python3 of the virtual environment that
/// the variable VIRTUAL_ENV names, or else python3 on PATH.
inline std::string executable(const std::string& given) {
  if (!given.empty()) {
    if (std::filesystem::is_directory(given)) return given + "/bin/python3";
    return given;
  }
  if (const char* folder = std::getenv("VIRTUAL_ENV"); folder != nullptr && *folder != '\0')
    return std::string(folder) + "/bin/python3";
  return detail::output_of("command -v python3");
}

/// Starts the interpreter with the packages of an `executable`. Python installs no handlers for
/// signals: Ctrl-C stays with the program. Throws python::error if there is no such Python, or one
/// of another version than the program was built with.
inline void start(const std::string& given = {}) {
  const auto program = executable(given);
  auto& running = detail::running();
  if (!running.empty()) {
    if (running == program) return;
    throw error("Python of " + running + " is in use, so " + program + " cannot be: one at a time");
  }
  const std::string advice =
      "give another with --python PATH; this program was built with Python " + detail::built_with;
  if (program.empty()) throw error("there is no python3 on PATH: " + advice);
  const auto version = detail::output_of(
      detail::quoted(program) + " -c 'import sys; print(\"%d.%d\" % sys.version_info[:2])' 2>&1");
  if (version != detail::built_with)
    throw error(program +
                (version.find('.') < 3
                     ? " is Python " + version
                     : " does not run as Python (" + detail::first_line(version) + ")") +
                ": " + advice);
  PyConfig config;
  PyConfig_InitPythonConfig(&config);
  config.install_signal_handlers = 0;
  config.parse_argv = 0;
  auto status = PyConfig_SetBytesString(&config, &config.program_name, program.c_str());
  if (PyStatus_Exception(status) == 0) status = Py_InitializeFromConfig(&config);
  PyConfig_Clear(&config);
  if (PyStatus_Exception(status) != 0)
    throw error("cannot start " + program + ": " +
                (status.err_msg != nullptr ? status.err_msg : "unknown reason"));
  PyEval_SaveThread();  // any thread may call from now on
  running = program;
}

/// Calls `function`, which uses Python, from any thread. One thread at a time is inside. An
/// exception of Python becomes a python::error: `what`, and the exception's first line.
template <class Function>
decltype(auto) call(const std::string& what, Function&& function) {
  const py::gil_scoped_acquire lock;
  try {
    return std::forward<Function>(function)();
  } catch (const py::error_already_set& raised) {
    throw error(what + ": " + detail::first_line(raised.what()));
  } catch (const py::cast_error& unfit) {
    throw error(what + ": " + detail::first_line(unfit.what()));
  }
}

/// An object of Python that may be moved and released in any thread.
class object {
 public:
  object() = default;
  /// Only inside call().
  explicit object(py::object value) : value_(value.release().ptr()) {}
  object(object&& other) noexcept : value_(std::exchange(other.value_, nullptr)) {}
  object& operator=(object&& other) noexcept {
    std::swap(value_, other.value_);
    return *this;
  }
  ~object() {
    if (value_ == nullptr) return;
    const py::gil_scoped_acquire lock;
    Py_DECREF(value_);
  }
  py::handle get() const { return value_; }

 private:
  PyObject* value_ = nullptr;
};

/// A module. `install`: what pip installs to have it. Throws python::error that says how, if the
/// module is missing. Only inside call().
inline py::module_ import(const std::string& name, const std::string& install) {
  try {
    return py::module_::import(name.c_str());
  } catch (const py::error_already_set& raised) {
    if (!raised.matches(PyExc_ImportError)) throw;
    throw error(detail::running() + " has no package " + name + " (" +
                detail::first_line(raised.what()) + "). To install it: python" +
                detail::built_with + " -m venv FOLDER && FOLDER/bin/pip install " + install +
                ", then give --python FOLDER");
  }
}

/// An array of numpy whose numbers are read and written in place.
template <class Number>
class array {
 public:
  /// Only inside call().
  array(const char* type, const py::tuple& shape)
      : value_(import("numpy", "numpy").attr("zeros")(shape, type)) {
    if (PyObject_GetBuffer(value_.get().ptr(), &view_, PyBUF_WRITABLE | PyBUF_C_CONTIGUOUS) != 0)
      throw py::error_already_set();
    PyBuffer_Release(&view_);  // the array is never resized: its numbers stay where they are
    data_ = static_cast<Number*>(view_.buf);
    size_ = static_cast<std::size_t>(view_.len) / sizeof(Number);
  }
  py::handle get() const { return value_.get(); }
  Number* data() const { return data_; }
  std::size_t size() const { return size_; }

 private:
  object value_;
  Py_buffer view_{};
  Number* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace python

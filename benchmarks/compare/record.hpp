// SPDX-License-Identifier: MIT
// compare.json: what the runner knows about a run. It lies in the run's folder, so that folders
// can be copied and merged.
#pragma once

#include <unistd.h>

#include <array>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "../../examples/common/files.hpp"
#include "located_json.hpp"

namespace compare {

inline constexpr const char* record_name = "compare.json";
inline constexpr const char* record_format = "retain-compare 1";

enum class run_status { untouched, running, stopped, failed, finished };

inline const char* name_of(run_status status) {
  constexpr std::array<const char*, 5> names{"untouched", "running", "stopped", "failed",
                                             "finished"};
  return names[static_cast<std::size_t>(status)];
}

struct run_record {
  json identity = json::object();  ///< what makes the run this run; see `unit::identity`
  std::vector<std::string> command;
  run_status status = run_status::untouched;
  std::string ended;  ///< "exit code 1", "signal 9", …
  std::string host;
  long pid = 0;
  int attempts = 0;
  double seconds = 0;  ///< of all attempts

  json to_json() const {
    return {{"format", record_format},
            {"identity", identity},
            {"command", command},
            {"status", name_of(status)},
            {"ended", ended},
            {"host", host},
            {"pid", pid},
            {"attempts", attempts},
            {"seconds", seconds}};
  }
};

inline std::string host_name() {
  std::array<char, 256> name{};
  return gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "?";
}

inline json read_ordered(const std::filesystem::path& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error("cannot read " + path.string());
  try {
    return json::parse(file);
  } catch (const json::exception& error) {
    throw std::runtime_error(path.string() + " is not valid JSON: " + error.what());
  }
}

inline void write_ordered(const std::filesystem::path& path, const json& value) {
  write_file(path, value.dump(1) + "\n");
}

/// The record in `folder`; "untouched" if there is none. Throws std::runtime_error if the file is
/// damaged.
inline run_record read_record(const std::filesystem::path& folder) {
  run_record record;
  const auto path = folder / record_name;
  if (!std::filesystem::exists(path)) return record;
  const auto file = read_ordered(path);
  try {
    if (file.at("format") != record_format)
      throw std::runtime_error(path.string() + " has the format '" +
                               file.at("format").get<std::string>() + "', not '" + record_format +
                               "': it is from another version");
    record.identity = file.at("identity");
    record.command = file.at("command").get<std::vector<std::string>>();
    const auto status = file.at("status").get<std::string>();
    for (const auto each :
         {run_status::running, run_status::stopped, run_status::failed, run_status::finished})
      if (status == name_of(each)) record.status = each;
    record.ended = file.at("ended").get<std::string>();
    record.host = file.at("host").get<std::string>();
    record.pid = file.at("pid").get<long>();
    record.attempts = file.at("attempts").get<int>();
    record.seconds = file.at("seconds").get<double>();
  } catch (const json::exception& error) {
    throw std::runtime_error(path.string() + " is damaged (" + error.what() +
                             "): remove the folder to run it again");
  }
  return record;
}

inline void write_record(const std::filesystem::path& folder, const run_record& record) {
  write_ordered(folder / record_name, record.to_json());
}

}  // namespace compare

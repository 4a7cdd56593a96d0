// SPDX-License-Identifier: MIT
// Sums, texts and means over the processes of a group.
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/core/parameters.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <charconv>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace retain {

/// A group of processes: c10d::ProcessGroupGloo, c10d::ProcessGroupNCCL, or c10d::ProcessGroup. See
/// retain/distributed.hpp.
template <class G>
concept process_group = requires(G& group, std::vector<at::Tensor>& tensors,
                                 std::vector<std::vector<at::Tensor>>& all) {
  { group.getRank() } -> std::convertible_to<int>;
  { group.getSize() } -> std::convertible_to<int>;
  group.allreduce(tensors)->wait();
  group.allgather(all, tensors)->wait();
};

namespace detail {

/// Runs a collective and waits for it. Names the rank that waited and the call, since c10d's own
/// errors name neither.
template <class Group, class Start>
void wait_for_all(const char* what, Group& group, Start start) {
  try {
    start()->wait();
  } catch (const std::exception& error) {
    const std::string_view text = error.what();
    throw state_error(concat(what, ": rank ", group.getRank(), " of ", group.getSize(),
                             " waited for the other processes, and one of them died, hangs, or "
                             "called something else: ",
                             text.substr(0, text.find('\n'))));
  }
}

template <class Group>
void sum_over_ranks(const char* what, Group& group, at::Tensor& tensor) {
  std::vector<at::Tensor> tensors{tensor};
  wait_for_all(what, group, [&] { return group.allreduce(tensors); });
  tensor = tensors.front();
}

/// Returns one tensor of the same shape from every rank.
template <class Group>
std::vector<at::Tensor> of_all_ranks(const char* what, Group& group, const at::Tensor& mine) {
  std::vector<at::Tensor> tensors{mine};
  std::vector<std::vector<at::Tensor>> all(1);
  for (int rank = 0; rank < group.getSize(); ++rank) all[0].push_back(at::empty_like(mine));
  wait_for_all(what, group, [&] { return group.allgather(all, tensors); });
  return all[0];
}

/// Returns the text of every rank.
template <class Group>
std::vector<std::string> texts_of_all_ranks(const char* what, Group& group, const std::string& mine,
                                            at::Device device) {
  const auto length = static_cast<std::int64_t>(mine.size());
  std::vector<std::int64_t> lengths;
  for (const auto& each : of_all_ranks(what, group, at::full({1}, length, at::kLong).to(device)))
    lengths.push_back(each.template item<std::int64_t>());
  const auto longest = *std::max_element(lengths.begin(), lengths.end());
  auto bytes = at::zeros({std::max<std::int64_t>(longest, 1)}, at::kByte);
  std::memcpy(bytes.data_ptr(), mine.data(), mine.size());
  std::vector<std::string> texts;
  for (const auto& each : of_all_ranks(what, group, bytes.to(device))) {
    const auto text = each.cpu();
    texts.emplace_back(static_cast<const char*>(text.data_ptr()),
                       static_cast<std::size_t>(lengths[texts.size()]));
  }
  return texts;
}

/// What one process brings to a mean: tensors by name, how many states they are a mean of, what
/// must be the same everywhere, and what may differ.
struct share {
  parameter_list values;
  double count = 0;
  std::string agreed;
  std::string own;
};

/// The mean over all states, the number of states, and `own` of every rank.
struct pooled {
  parameter_list values;
  double count = 0;
  std::string agreed;
  std::vector<double> counts;
  std::vector<std::string> own;
};

/// The settings that must agree, then one line per tensor: name, type as a number, sizes.
inline std::string described(const share& mine) {
  std::string text = mine.agreed + '\n';
  for (const auto& [name, tensor] : mine.values) {
    text += concat(name, '\t', static_cast<int>(tensor.scalar_type()));
    for (const auto size : tensor.sizes()) text += concat(' ', size);
    text += '\n';
  }
  return text;
}

/// Cuts the first line off.
inline std::string_view next_line(std::string_view& text) {
  const auto line = text.substr(0, text.find('\n'));
  text.remove_prefix(std::min(text.size(), line.size() + 1));
  return line;
}

/// Zeros like the tensor of a line of described(), and the tensor's type.
inline std::pair<at::Tensor, at::ScalarType> zeros_of(std::string_view line, at::Device device) {
  std::vector<std::int64_t> numbers;
  const char* from = line.data() + line.find('\t');
  for (const char* const end = line.data() + line.size(); from < end;) {
    std::int64_t number = 0;
    from = std::from_chars(from + 1, end, number).ptr;
    numbers.push_back(number);
  }
  const at::IntArrayRef sizes(numbers.data() + 1, numbers.size() - 1);
  return {at::zeros(sizes, at::TensorOptions(device).dtype(at::kDouble)),
          static_cast<at::ScalarType>(numbers.front())};
}

/// A line of described() for people.
inline std::string readable(std::string_view line, bool settings) {
  if (line.empty() && !settings) return "nothing";
  if (settings) return concat("the settings '", line, "'");
  const auto [zeros, type] = zeros_of(line, at::kCPU);
  return concat("'", line.substr(0, line.find('\t')), "' ", shape_text(zeros.sizes()), " of type ",
                c10::toString(type));
}

/// Says where the first difference of two descriptions is.
inline std::string first_difference(std::string_view mine, std::string_view other, int other_rank) {
  for (bool settings = true; !mine.empty() || !other.empty(); settings = false) {
    const auto here = next_line(mine), there = next_line(other);
    if (here != there)
      return concat(readable(here, settings), ", where rank ", other_rank, " has ",
                    readable(there, settings));
  }
  return {};
}

/// Returns sum_r n_r x_r / sum_r n_r for every tensor. The sums are in double. A rank without
/// states needs no tensors.
template <process_group Group>
pooled mean_over_ranks(const char* what, const share& mine, Group& group, at::Device device) {
  const at::NoGradGuard no_grad;
  if (!mine.values.empty()) device = mine.values.front().tensor.device();
  const std::string description = mine.count > 0 ? described(mine) : std::string();
  const auto counts = of_all_ranks(what, group, at::full({1}, mine.count, at::kDouble).to(device));
  const auto descriptions = texts_of_all_ranks(what, group, description, device);
  pooled result;
  result.own = texts_of_all_ranks(what, group, mine.own, device);
  std::size_t first = counts.size();
  for (std::size_t rank = 0; rank < counts.size(); ++rank) {
    result.counts.push_back(counts[rank].template item<double>());
    result.count += result.counts.back();
    if (descriptions[rank].empty()) continue;
    if (first == counts.size()) first = rank;
    if (descriptions[rank] == descriptions[first]) continue;
    throw config_error(
        concat(what, ": rank ", rank, " has ",
               first_difference(descriptions[rank], descriptions[first], static_cast<int>(first)),
               ": give every process the same model and the same options"));
  }
  if (first == counts.size()) throw config_error(concat(what, ": no rank has states"));

  // A rank without states learns names and sizes from one that has some.
  std::string_view rest = descriptions[first];
  result.agreed = next_line(rest);
  for (std::size_t i = 0; !rest.empty(); ++i) {
    const auto line = next_line(rest);
    auto [sum, type] = zeros_of(line, device);
    if (mine.count > 0) sum = mine.values[i].tensor.to(at::kDouble) * mine.count;
    sum_over_ranks(what, group, sum);
    result.values.push_back(
        {std::string(line.substr(0, line.find('\t'))), (sum / result.count).to(type)});
  }
  return result;
}

/// Patterns in one line, in their order.
inline std::string joined(const std::vector<std::string>& patterns) {
  std::string text;
  for (const auto& pattern : patterns) text += (text.empty() ? "" : ", ") + pattern;
  return text;
}
inline std::vector<std::string> split(std::string_view text, std::string_view by) {
  std::vector<std::string> parts;
  while (!text.empty()) {
    parts.emplace_back(text.substr(0, text.find(by)));
    text.remove_prefix(std::min(text.size(), parts.back().size() + by.size()));
  }
  return parts;
}

}  // namespace detail

}  // namespace retain

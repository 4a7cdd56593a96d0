// SPDX-License-Identifier: MIT
// The header of a safetensors file of any program, as retain::load_weights reads it.
#include "exact_bytes.hpp"
#include "state_bytes.hpp"

#include <retain/files/weights_header.hpp>

#include <sstream>

namespace {

namespace detail = retain::detail;

/// A file of this header and this data: the length is right.
std::string weights_file(const std::string& header, const std::string& data) {
  const std::uint64_t length = header.size();
  std::string bytes(sizeof length, '\0');
  std::memcpy(bytes.data(), &length, sizeof length);
  return bytes + header + data;
}

template <class Source>
std::optional<detail::weights_header> weights_of(Source& source) {
  try {
    return detail::read_weights_header("input", source);
  } catch (const retain::io_error&) {
    return std::nullopt;
  }
}

bool same_tensors(const std::vector<detail::stored_tensor>& a,
                  const std::vector<detail::stored_tensor>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const auto& one, const auto& other) {
    return one.name == other.name && one.type == other.type && one.shape == other.shape &&
           one.begin == other.begin && one.end == other.end && one.other_type == other.other_type;
  });
}

}  // namespace

std::vector<std::string> fuzz::seeds() {
  auto all = state_seeds();  // a state is a safetensors file, too
  all.push_back(weights_file("{}", ""));
  all.push_back(weights_file(
      R"({"b":{"dtype":"F16","shape":[2,3],"data_offsets":[8,20]},"a":{"dtype":"F64","shape":[],"data_offsets":[0,8]}})",
      std::string(20, '\2')));
  all.push_back(weights_file(
      "{\n\t\"__metadata__\": {\"format\": \"pt\", \"\\u00e9\\n\": \"\\ud83d\\ude00\"},\r\n"
      "\t\"w\": {\"shape\": [1, 2], \"data_offsets\": [0, 4], \"dtype\": \"BF16\"},\n"
      "\t\"f\": {\"dtype\": \"F8_E4M3\", \"shape\": [3], \"data_offsets\": [4, 7]}\n}  \n",
      std::string(7, '\1')));
  return all;
}

std::string fuzz::mutate(const std::string& bytes, std::size_t most, std::mt19937& dice) {
  constexpr std::size_t before = sizeof(std::uint64_t);
  if (bytes.size() < before || dice() % 16 == 0) return change(bytes, most, dice);
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), before);
  length = std::min<std::uint64_t>(length, bytes.size() - before);
  std::string header = bytes.substr(before, static_cast<std::size_t>(length)),
              data = bytes.substr(before + static_cast<std::size_t>(length));
  const std::size_t room = most > before ? most - before : 0;
  if (dice() % 8 == 0)
    data = change(data, room, dice);
  else
    header = change(header, room, dice);
  if (dice() % 2 == 0) data.resize(claimed_end(header), '\7');
  if (header.size() > room) header.resize(room);
  if (data.size() > room - header.size()) data.resize(room - header.size());
  return weights_file(header, data);
}

void fuzz::check(std::string_view bytes) {
  const exact_bytes source(bytes);
  const auto header = weights_of(source);
  std::istringstream stream{std::string(bytes)};
  const std::string name = "input";
  detail::stream_source piecewise(stream, name);
  const auto streamed = weights_of(piecewise);
  require(streamed.has_value() == header.has_value() &&
              (!header || (same_tensors(streamed->tensors, header->tensors) &&
                           streamed->texts == header->texts)),
          "a stream and memory are read alike");
  if (const auto state = header_of(source, false))
    require(header && same_tensors(header->tensors, state->tensors),
            "a state is a safetensors file of the same tensors");
  if (!header) return;

  std::uint64_t header_size = 0, sum = 0;
  std::memcpy(&header_size, bytes.data(), sizeof header_size);
  const std::uint64_t start = sizeof header_size + header_size;
  std::set<std::string> names;
  auto tensors = header->tensors;
  for (const auto& tensor : tensors) {
    require(names.insert(tensor.name).second, "every tensor has a name of its own");
    require(tensor.begin >= start && tensor.begin <= tensor.end && tensor.end <= bytes.size(),
            "a tensor lies in its file");
    const bool known = tensor.type < detail::element_types.size();
    require(!known || tensor.other_type.empty(), "only an unknown type has a name of its own");
    std::uint64_t its = tensor.end - tensor.begin;
    if (known)
      require(detail::count_bytes(detail::element_types[tensor.type].size, tensor.shape, its) &&
                  its == tensor.end - tensor.begin,
              "a tensor has the bytes of its shape");
    sum += its;
  }
  require(start + sum == bytes.size(), "the tensors fill the file");

  // Written again, it is the same but for the order and the places.
  for (const auto& tensor : tensors)
    if (tensor.type == detail::element_types.size()) return;
  std::sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  const std::string text = detail::weights_header_text(tensors);
  auto again = detail::parse_weights_header("again", text, sizeof header_size + text.size() + sum);
  for (auto& tensor : again.tensors) {
    tensor.begin += start - sizeof header_size - text.size();
    tensor.end += start - sizeof header_size - text.size();
  }
  require(same_tensors(again.tensors, tensors), "tensors are written back the same");
}

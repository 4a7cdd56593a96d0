// SPDX-License-Identifier: MIT
// The header of a state file, out of memory and out of a stream as retain::state reads it.
#include "exact_bytes.hpp"
#include "state_bytes.hpp"

#include <sstream>

std::vector<std::string> fuzz::seeds() { return state_seeds(); }

std::string fuzz::mutate(const std::string& bytes, std::size_t most, std::mt19937& dice) {
  return mutated_state(bytes, most, dice);
}

void fuzz::check(std::string_view bytes) {
  const exact_bytes source(bytes);
  const auto trusted = header_of(source, false), verified = header_of(source, true);
  std::istringstream stream{std::string(bytes)};
  const std::string name = "input";
  detail::stream_source piecewise(stream, name);
  require(same(header_of(piecewise, true), verified), "a stream and memory are read alike");
  require(!verified || same(trusted, verified),
          "what is verified is accepted without, and the same");
  if (!trusted) return;
  std::uint64_t header_size = 0;
  std::memcpy(&header_size, bytes.data(), sizeof header_size);
  check_header(*trusted, bytes.size(), header_size);
  for (const auto& tensor : trusted->tensors) {
    std::vector<char> values(static_cast<std::size_t>(tensor.end - tensor.begin));
    piecewise.read(tensor.begin, values.data(), values.size());
    require(
        std::string_view(values.data(), values.size()) == source.view(tensor.begin, values.size()),
        "a tensor's bytes are those of the file");
  }
}

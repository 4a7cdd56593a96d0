// SPDX-License-Identifier: MIT
// Draws a gnuplot script as PNG and SVG. The script and the data are kept next to the picture, so
// that you can draw the picture again.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <string>

#include <retain/files/new_file.hpp>

namespace gnuplot {

/// The colors of Okabe and Ito. People with any kind of color blindness can distinguish them.
inline constexpr const char* black = "#000000";
inline constexpr const char* gray = "#999999";
inline constexpr const char* vermilion = "#D55E00";
inline constexpr const char* orange = "#E69F00";
inline constexpr const char* blue = "#0072B2";
inline constexpr const char* green = "#009E73";
inline constexpr const char* purple = "#CC79A7";
inline constexpr const char* sky = "#56B4E9";

/// Three colors from Tol's muted scheme, which is also designed for color blindness.
inline constexpr const char* indigo = "#332288";
inline constexpr const char* wine = "#882255";
inline constexpr const char* olive = "#999933";

/// Returns `text` as a quoted string for a gnuplot script.
inline std::string quoted(const std::string& text) {
  std::string result = "'";
  for (const char c : text) result += c == '\'' ? std::string("''") : std::string(1, c);
  return result + "'";
}

/// Writes STEM.gp and draws STEM.png and STEM.svg. Returns false and prints a line to stderr if
/// the files cannot be written, if gnuplot is missing, or if gnuplot fails. It does not throw, so
/// that a missing picture does not stop the program.
inline bool draw(const std::filesystem::path& stem, const std::string& script, int width = 1200,
                 int height = 560) {
  const auto with = [&](const char* extension) {
    auto path = stem;
    path += extension;
    return path;
  };
  const std::string size = std::to_string(width) + "," + std::to_string(height);
  std::ostringstream text;
  text << "set encoding utf8\n"
       << "set terminal pngcairo size " << size << " font 'DejaVu Sans,11'\n"
       << "set output " << quoted(with(".png").string()) << "\n"
       << script << "\n"
       << "set terminal svg size " << size << " font 'DejaVu Sans,12' background '#ffffff'\n"
       << "set output " << quoted(with(".svg").string()) << "\n"
       << script << "\nset output\n";
  try {
    retain::detail::new_file file(with(".gp").string());
    file.put(text.str());
    file.take_place();
  } catch (const retain::io_error& error) {
    std::fprintf(stderr, "no picture: %s\n", error.what());
    return false;
  }
  // Quotes the path for sh: each ' becomes '\''.
  std::string shell_path = "'";
  for (const char c : with(".gp").string())
    shell_path += c == '\'' ? std::string("'\\''") : std::string(1, c);
  shell_path += "'";
  if (std::system("command -v gnuplot >/dev/null 2>&1") != 0) {
    std::fprintf(stderr,
                 "no picture: gnuplot is missing. Install it (apt install gnuplot-nox), then run: "
                 "gnuplot %s\n",
                 shell_path.c_str());
    return false;
  }
  if (std::system(("gnuplot " + shell_path).c_str()) != 0) {
    std::fprintf(stderr, "no picture: gnuplot failed. To see the error, run: gnuplot %s\n",
                 shell_path.c_str());
    return false;
  }
  return true;
}

}  // namespace gnuplot

// SPDX-License-Identifier: MIT
// A report as headings, texts, tables and pictures; written as Markdown, HTML and LaTeX.
#pragma once

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "../../examples/common/table.hpp"

namespace compare {

struct block {
  enum class kind { heading, text, warning, table, picture };
  kind what = kind::text;
  int level = 2;                               ///< of a heading
  std::string text;                            ///< heading, text, caption
  std::vector<std::vector<std::string>> rows;  ///< of a table; the first is the header
  std::string name, svg;                       ///< of a picture
};

struct document {
  std::string title;
  std::vector<block> blocks;

  void heading(int level, const std::string& text) {
    blocks.push_back({block::kind::heading, level, text, {}, {}, {}});
  }
  void text(const std::string& text) { blocks.push_back({block::kind::text, 0, text, {}, {}, {}}); }
  void warning(const std::string& text) {
    blocks.push_back({block::kind::warning, 0, text, {}, {}, {}});
  }
  void table(std::vector<std::vector<std::string>> rows, const std::string& caption = {}) {
    if (rows.size() > 1)
      blocks.push_back({block::kind::table, 0, caption, std::move(rows), {}, {}});
  }
  void picture(const std::string& name, const std::string& caption, std::string svg) {
    blocks.push_back({block::kind::picture, 0, caption, {}, name, std::move(svg)});
  }
};

namespace detail {

inline std::string escaped(const std::string& text,
                           const std::vector<std::pair<std::string, std::string>>& by) {
  std::string out;
  for (std::size_t i = 0; i < text.size();) {
    bool found = false;
    for (const auto& [from, to] : by)
      if (text.compare(i, from.size(), from) == 0) {
        out += to;
        i += from.size();
        found = true;
        break;
      }
    if (!found) out += text[i++];
  }
  return out;
}

inline std::string html_text(const std::string& text) {
  return escaped(text, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}});
}

inline std::string latex_text(const std::string& text) {
  return escaped(text, {{"\\", "\\textbackslash{}"},
                        {"&", "\\&"},
                        {"%", "\\%"},
                        {"$", "\\$"},
                        {"#", "\\#"},
                        {"_", "\\_"},
                        {"{", "\\{"},
                        {"}", "\\}"},
                        {"~", "\\textasciitilde{}"},
                        {"^", "\\textasciicircum{}"},
                        {"…", "\\ldots{}"},
                        {"–", "--"},
                        {"−", "$-$"},
                        {"≥", "$\\ge$"},
                        {"×", "$\\times$"},
                        {"µ", "$\\mu$"},
                        {"·", "$\\cdot$"},
                        {"<", "$<$"},
                        {">", "$>$"}});
}

/// What the pages look like; the pictures use the same variables. The colors are those of Okabe and
/// Ito, which color-blind readers tell apart.
inline constexpr const char* shared_style = R"(
:root{color-scheme:light dark;--bg:#ffffff;--ink:#1b1b1b;--soft:#5c5c5c;--line:#d6d6d6;--note:#fff4d6;
--c0:#0072b2;--c1:#d55e00;--c2:#009e73;--c3:#cc79a7;--c4:#b07d00;--c5:#3a9fd8;--c6:#1b1b1b}
@media (prefers-color-scheme:dark){:root{--bg:#16181b;--ink:#e8e8e8;--soft:#a6a6a6;--line:#3b3f45;--note:#3a3219;
--c0:#4da6e0;--c1:#ff8a3d;--c2:#2cc79a;--c3:#e5a3c8;--c4:#e6b422;--c5:#8fd0f5;--c6:#e8e8e8}}
)";

inline constexpr const char* page_style = R"(
body{background:var(--bg);color:var(--ink);font:16px/1.5 system-ui,sans-serif;margin:0 auto;padding:1rem;max-width:72rem}
h1{font-size:1.6rem;line-height:1.2}h2{font-size:1.3rem;margin-top:2.5rem;border-top:1px solid var(--line);padding-top:1rem}
h3{font-size:1.05rem;margin-top:1.8rem}p{max-width:46rem}a{color:var(--c0)}
nav ul{padding-left:1.2rem}
.warning{background:var(--note);padding:.5rem .8rem;border-left:4px solid var(--c1)}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.9rem;margin:.5rem 0}
th,td{padding:.25rem .7rem;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line)}
th:first-child,td:first-child{text-align:left;position:sticky;left:0;background:var(--bg)}
thead th{border-bottom:2px solid var(--soft)}
.caption,figcaption{color:var(--soft);font-size:.85rem;max-width:46rem;margin:1rem 0 .2rem}
.pictures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr));gap:1rem}
figure{margin:0}figcaption{margin:0}svg{width:100%;height:auto;max-width:38rem;display:block}
@media print{:root{--bg:#fff;--ink:#000}.pictures{grid-template-columns:1fr 1fr}h2{break-before:auto}figure,table{break-inside:avoid}}
)";

}  // namespace detail

/// Pictures are links to NAME.svg.
inline std::string markdown_of(const document& doc) {
  std::string text = "# " + doc.title + "\n\n";
  for (const auto& each : doc.blocks) switch (each.what) {
      case block::kind::heading:
        text += std::string(static_cast<std::size_t>(each.level), '#') + " " + each.text + "\n\n";
        break;
      case block::kind::text: text += each.text + "\n\n"; break;
      case block::kind::warning: text += "> **Note:** " + each.text + "\n\n"; break;
      case block::kind::table: {
        text_table table(each.rows.front());
        for (std::size_t i = 1; i < each.rows.size(); ++i) table.add(each.rows[i]);
        text += (each.text.empty() ? "" : each.text + "\n\n") + table.markdown() + "\n";
        break;
      }
      case block::kind::picture: text += "![" + each.text + "](" + each.name + ".svg)\n\n"; break;
    }
  return text;
}

/// One page without any other file.
inline std::string html_of(const document& doc) {
  using detail::html_text;
  std::string text =
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<title>" +
      html_text(doc.title) + "</title>\n<style>" + detail::shared_style + detail::page_style +
      "</style></head><body>\n<h1>" + html_text(doc.title) + "</h1>\n<nav><ul>\n";
  int number = 0;
  for (const auto& each : doc.blocks)
    if (each.what == block::kind::heading && each.level == 2)
      text += "<li><a href=\"#s" + std::to_string(number++) + "\">" + html_text(each.text) +
              "</a></li>\n";
  text += "</ul></nav>\n<main>\n";
  number = 0;
  bool pictures = false;
  for (const auto& each : doc.blocks) {
    const bool picture = each.what == block::kind::picture;
    if (picture != pictures) text += picture ? "<div class=\"pictures\">\n" : "</div>\n";
    pictures = picture;
    switch (each.what) {
      case block::kind::heading: {
        const auto tag = "h" + std::to_string(each.level);
        text += "<" + tag;
        if (each.level == 2) text += " id=\"s" + std::to_string(number++) + "\"";
        text += ">" + html_text(each.text) + "</" + tag + ">\n";
        break;
      }
      case block::kind::text: text += "<p>" + html_text(each.text) + "</p>\n"; break;
      case block::kind::warning:
        text += "<p class=\"warning\">" + html_text(each.text) + "</p>\n";
        break;
      case block::kind::table: {
        // a scrolling box must be reachable by keyboard
        if (!each.text.empty()) text += "<p class=\"caption\">" + html_text(each.text) + "</p>";
        text += "<div class=\"scroll\" tabindex=\"0\"><table aria-label=\"" + html_text(each.text) +
                "\">";
        for (std::size_t r = 0; r < each.rows.size(); ++r) {
          text += r == 0 ? "<thead><tr>" : r == 1 ? "<tbody><tr>" : "<tr>";
          for (std::size_t c = 0; c < each.rows[r].size(); ++c) {
            const std::string tag = r == 0 || c == 0 ? "th" : "td";
            text += "<" + tag +
                    (r == 0   ? " scope=\"col\""
                     : c == 0 ? " scope=\"row\""
                              : "") +
                    ">" + html_text(each.rows[r][c]) + "</" + tag + ">";
          }
          text += r == 0 ? "</tr></thead>\n" : "</tr>\n";
        }
        text += "</tbody></table></div>\n";
        break;
      }
      case block::kind::picture:
        text += "<figure>" + each.svg + "<figcaption>" + html_text(each.text) +
                "</figcaption></figure>\n";
        break;
    }
  }
  if (pictures) text += "</div>\n";
  return text + "</main></body></html>\n";
}

/// The tables, with booktabs.
inline std::string latex_of(const document& doc) {
  using detail::latex_text;
  std::string text = "% " + doc.title + "; \\usepackage{booktabs}\n", heading;
  for (const auto& each : doc.blocks) {
    if (each.what == block::kind::heading) {
      heading = each.text;
      text += "\n% " + each.text + "\n";
    }
    if (each.what != block::kind::table) continue;
    text += "\\begin{table}\n\\centering\n\\begin{tabular}{l" +
            std::string(each.rows.front().size() - 1, 'r') + "}\n\\toprule\n";
    for (std::size_t r = 0; r < each.rows.size(); ++r) {
      for (std::size_t c = 0; c < each.rows[r].size(); ++c)
        text += (c == 0 ? "" : " & ") + latex_text(each.rows[r][c]);
      text += r == 0 ? " \\\\\n\\midrule\n" : " \\\\\n";
    }
    text += "\\bottomrule\n\\end{tabular}\n\\caption{" + latex_text(heading) +
            (each.text.empty() ? "" : ". " + latex_text(each.text)) + "}\n\\end{table}\n";
  }
  return text;
}

/// A picture as a file of its own.
inline std::string svg_file(const block& picture) {
  auto text = picture.svg;
  const auto end = text.find('>') + 1;
  text.insert(end, std::string("<style>") + detail::shared_style +
                       "svg{background:var(--bg);font-family:system-ui,sans-serif}</style>");
  return "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n" + text + "\n";
}

}  // namespace compare

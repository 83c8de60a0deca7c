#include "models/architectures.h"

#include <fmt/ranges.h>

#include <algorithm>

namespace hax {
namespace {

constexpr BaseArch kBases[] = {
    {"mamba", "Mamba", "Mamba: a selective scan"},
    {"mamba2", "Mamba2", "Mamba2: a scan with one decay a head"},
    {"mamba_2x", "Mamba, 2× width", "Mamba at twice the width"},
    {"mamba2_2x", "Mamba2, 2× width", "Mamba2 at twice the width"},
    {"samba", "Samba", "Mamba and window attention in turn, an MLP after each"},
    {"transformer", "", "attention to all positions so far, an MLP after each"},
};

constexpr SparseArch kSelectors[] = {
    {"none", "Base", "no sparse branch", false},
    {"full", "", "all", false},
    {"dilated", "D", "every d-th, of these the latest k", false},
    {"sliding_window", "SW", "the latest k", false},
    {"sliding_window+dilated", "SW+D", "the latest k/2, and k/2 dilated ones", false},
    {"sliding_window+sink", "A", "the latest k/2, and the first k/2", false},
    {"argmax_lsh", "LSH (argmax)", "the latest k in its hash bin, by argmax", true},
    {"sign_bin_lsh", "LSH (sign bits)", "the latest k in its bin, by sign bits", true},
    {"key_selection", "KS", "the k that score best so far", true},
    {"sign_bin_lsh+key_selection", "HAX", "k/2 in its sign-bit bin, k/2 by score", true},
};

template <class Entry>
std::vector<std::string> names_of(std::span<const Entry> entries) {
  std::vector<std::string> names;
  for (const Entry& entry : entries) names.emplace_back(entry.name);
  return names;
}

template <class Entry>
std::string lines_of(std::span<const Entry> entries, std::string_view Entry::*phrase) {
  std::size_t width = 0;
  for (const Entry& entry : entries) width = std::max(width, entry.name.size());
  std::vector<std::string> lines;
  for (const Entry& entry : entries) {
    lines.push_back(fmt::format("{:<{}}  {}", entry.name, width, entry.*phrase));
  }
  return fmt::format("{}", fmt::join(lines, "\n"));
}

std::string_view or_dash(std::string_view text) { return text.empty() ? "–" : text; }

}  // namespace

std::span<const BaseArch> base_archs() { return kBases; }
std::span<const SparseArch> sparse_archs() { return kSelectors; }
std::vector<std::string> base_arch_names() { return names_of(base_archs()); }
std::vector<std::string> sparse_arch_names() { return names_of(sparse_archs()); }

std::string base_arch_lines() { return lines_of(base_archs(), &BaseArch::what); }
std::string sparse_arch_lines() { return lines_of(sparse_archs(), &SparseArch::sees); }

std::string architectures_markdown() {
  std::string text = "| `--base_arch` | in the paper | what it is |\n|---|---|---|\n";
  for (const BaseArch& base : base_archs()) {
    text += fmt::format("| `{}` | {} | {} |\n", base.name, or_dash(base.paper), base.what);
  }
  text +=
      "\n| `--sparse_arch` | in the paper | keys j ≤ i that query i sees | by content |\n"
      "|---|---|---|---|\n";
  for (const SparseArch& sparse : sparse_archs()) {
    text += fmt::format("| `{}` | {} | {} | {} |\n", sparse.name, or_dash(sparse.paper),
                        sparse.sees, sparse.by_content ? "yes" : "no");
  }
  return text;
}

}  // namespace hax

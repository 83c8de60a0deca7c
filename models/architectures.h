// What can be asked for: the bases, the selectors of the sparse branch, and what they are to
// people. Flags, help texts, `hax list` and the tables of the README all come from here.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace hax {

/// A base architecture: --base_arch, a file of models/configs/.
struct BaseArch {
  std::string_view name;
  std::string_view paper;  ///< what the paper's table 3 calls it; "" when it is not there
  std::string_view what;
};

/// A sparse branch beside the scan of a base: --sparse_arch.
struct SparseArch {
  std::string_view name;
  std::string_view paper;  ///< what the paper calls it; "" when it is not there
  std::string_view sees;   ///< which of the positions so far a query sees, with k keys
  bool by_content;         ///< whether that depends on what the sequence says
};

std::span<const BaseArch> base_archs();
std::span<const SparseArch> sparse_archs();

/// The names alone, in the order of the tables.
std::vector<std::string> base_arch_names();
std::vector<std::string> sparse_arch_names();

/// One line a name, with its phrase (what it is, what a query sees), in two columns; no newline at
/// the end.
std::string base_arch_lines();
std::string sparse_arch_lines();

/// Both tables in Markdown, as the README holds them.
std::string architectures_markdown();

}  // namespace hax

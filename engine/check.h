// Errors: one exception type with a message that says what, where, what was expected and what to
// do.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace hax {

/// Anything that stops the work: bad data, a missing file, shapes that do not fit. Exit code 1.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// The caller asked for something that does not exist or is out of range. Exit code 2.
class UsageError : public Error {
 public:
  using Error::Error;
};

/// Throws Error with the formatted message unless `ok`.
template <class... Args>
void check(bool ok, fmt::format_string<Args...> message, Args&&... args) {
  if (!ok) [[unlikely]]
    throw Error(fmt::format(message, std::forward<Args>(args)...));
}

/// Throws UsageError with the formatted message unless `ok`.
template <class... Args>
void check_usage(bool ok, fmt::format_string<Args...> message, Args&&... args) {
  if (!ok) [[unlikely]]
    throw UsageError(fmt::format(message, std::forward<Args>(args)...));
}

}  // namespace hax

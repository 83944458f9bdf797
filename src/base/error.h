// Two words for what goes wrong: `check` for user and data errors, `BPTQ_ASSERT` for our own bugs.
//
// The library neither prints nor exits. A user or data error is an exception whose message is one
// line that says what, where (file, tensor or key), what was expected and what was found; the
// program turns it into exit code 2.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace blockptq {

/// Bad usage or bad input: the user can mend it.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

template <typename... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...));
}

/// Throws Error with the formatted message unless `ok`.
template <typename... Args>
void check(bool ok, fmt::format_string<Args...> format, Args&&... args) {
  if (!ok) [[unlikely]] {
    throw Error(fmt::format(format, std::forward<Args>(args)...));
  }
}

namespace internal {
[[noreturn]] void assertion_failed(const char* condition, const char* file, int line);
}  // namespace internal

}  // namespace blockptq

/// A condition that only a bug in blockptq can break; throws std::logic_error in every build.
#define BPTQ_ASSERT(condition) \
  ((condition) ? (void)0 : ::blockptq::internal::assertion_failed(#condition, __FILE__, __LINE__))

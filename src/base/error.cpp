#include "base/error.h"

namespace blockptq::internal {

void assertion_failed(const char* condition, const char* file, int line) {
  throw std::logic_error(
      fmt::format("internal error: {} does not hold at {}:{}", condition, file, line));
}

}  // namespace blockptq::internal

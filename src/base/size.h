// Sizes: overflow-checked 64-bit arithmetic for numbers that come from files, and sizes as people
// write them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace blockptq {

/// a * b of two non-negative numbers; Error naming `what` when the product does not fit in int64.
int64_t checked_mul(int64_t a, int64_t b, std::string_view what);

/// a + b of two non-negative numbers; Error naming `what` when the sum does not fit in int64.
int64_t checked_add(int64_t a, int64_t b, std::string_view what);

constexpr int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

/// "512", "5GB" (10^9), "5GiB" (2^30), "1.5 GB" and the like in bytes; Error naming `option` when
/// it is no size.
int64_t parse_size(std::string_view text, std::string_view option);

/// Bytes for people: "1.50 GB" (powers of ten).
std::string format_bytes(int64_t bytes);

/// "1,234,567".
std::string format_count(int64_t count);

/// "2 h 03 min", "4 min 05 s", "12.3 s".
std::string format_seconds(double seconds);

}  // namespace blockptq

#include "base/size.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <utility>

#include "base/error.h"

namespace blockptq {
namespace {

constexpr std::array<std::pair<std::string_view, double>, 13> kUnits{{{"", 1},
                                                                      {"B", 1},
                                                                      {"K", 1e3},
                                                                      {"KB", 1e3},
                                                                      {"M", 1e6},
                                                                      {"MB", 1e6},
                                                                      {"G", 1e9},
                                                                      {"GB", 1e9},
                                                                      {"TB", 1e12},
                                                                      {"KIB", 1024.0},
                                                                      {"MIB", 1048576.0},
                                                                      {"GIB", 1073741824.0},
                                                                      {"TIB", 1099511627776.0}}};

}  // namespace

int64_t checked_mul(int64_t a, int64_t b, std::string_view what) {
  int64_t product = 0;
  check(a >= 0 && b >= 0 && !__builtin_mul_overflow(a, b, &product),
        "{}: {} x {} does not fit in 64 bits", what, a, b);
  return product;
}

int64_t checked_add(int64_t a, int64_t b, std::string_view what) {
  int64_t sum = 0;
  check(a >= 0 && b >= 0 && !__builtin_add_overflow(a, b, &sum),
        "{}: {} + {} does not fit in 64 bits", what, a, b);
  return sum;
}

int64_t parse_size(std::string_view text, std::string_view option) {
  double number = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), number);
  std::string unit(end, text.data() + text.size());
  std::erase(unit, ' ');
  std::transform(unit.begin(), unit.end(), unit.begin(),
                 [](unsigned char c) { return std::toupper(c); });
  const auto* row = std::find_if(kUnits.begin(), kUnits.end(),
                                 [&](const auto& known) { return known.first == unit; });
  const double bytes = row == kUnits.end() ? -1 : number * row->second;
  check(status == std::errc() && bytes > 0 && bytes < 9e18,
        "{}: expected a size such as 5GB or 512MiB, found '{}'", option, text);
  return static_cast<int64_t>(bytes);
}

std::string format_bytes(int64_t bytes) {
  constexpr std::array<const char*, 6> kNames{"B", "kB", "MB", "GB", "TB", "PB"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  while (std::abs(value) >= 1000 && unit + 1 < kNames.size()) {
    value /= 1000;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.2f} {}", value, kNames[unit]);
}

std::string format_count(int64_t count) {
  std::string text = std::to_string(count);
  for (int64_t i = static_cast<int64_t>(text.size()) - 3; i > (count < 0 ? 1 : 0); i -= 3) {
    text.insert(static_cast<size_t>(i), 1, ',');
  }
  return text;
}

std::string format_seconds(double seconds) {
  if (seconds < 59.95) {  // what is not rounded to 60.0
    return fmt::format("{:.1f} s", seconds);
  }
  const auto whole = static_cast<int64_t>(std::llround(seconds));
  return whole < 3600 ? fmt::format("{} min {:02} s", whole / 60, whole % 60)
                      : fmt::format("{} h {:02} min", whole / 3600, whole % 3600 / 60);
}

}  // namespace blockptq

#include "report/html.h"

#include <fmt/format.h>

#include <cmath>

#include "base/error.h"
#include "base/size.h"

namespace blockptq {

std::string escape_html(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  for (const char c : text) {
    switch (c) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&quot;";
        break;
      case '\'':
        result += "&#39;";
        break;
      default:
        result += c;
    }
  }
  return result;
}

std::string embed_json(const Json& json) {
  std::string result;
  for (const char c : json.dump(-1, ' ', false, Json::error_handler_t::replace)) {
    if (c == '<') {
      result += "\\u003c";
    } else {
      result += c;
    }
  }
  return result;
}

namespace {

/// Small changes with more digits; never "-0".
std::string percent_text(double percent) {
  const int digits = std::abs(percent) < 1 ? 2 : 1;
  const std::string text = fmt::format("{:.{}f} %", percent, digits);
  return text == "-0.00 %" ? "0.00 %" : text;
}

}  // namespace

std::string show(const Json& number, Show how) {
  if (number.is_null()) {
    return "NaN";
  }
  BPTQ_ASSERT(number.is_number());
  const auto value = number.get<double>();
  switch (how) {
    case Show::number:
      return std::abs(value) >= 1000 ? fmt::format("{:.0f}", value) : fmt::format("{:.4g}", value);
    case Show::count:
      return format_count(number.get<int64_t>());
    case Show::percent:
      return percent_text(100 * value);
    case Show::ratio:
      return fmt::format("{:.3f}", value);
    case Show::seconds:
      return format_seconds(value);
    case Show::bytes:
      return format_bytes(number.get<int64_t>());
  }
  return "";
}

std::string value_html(const Json& data, const std::string& pointer, Show how) {
  const Json::json_pointer path(pointer);
  if (!data.contains(path)) {
    return "–";
  }
  const Json& number = data.at(path);
  return fmt::format(R"(<data data-path="{}" value="{}">{}</data>)", escape_html(pointer),
                     number.dump(), show(number, how));
}

}  // namespace blockptq

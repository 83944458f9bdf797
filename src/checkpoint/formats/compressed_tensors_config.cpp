#include "checkpoint/formats/compressed_tensors_config.h"

#include <fmt/ranges.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>
#include <tuple>
#include <utility>

#include "base/error.h"
#include "base/size.h"

namespace blockptq {
namespace {

/// A regular expression from an untrusted file: matching is bounded.
class Pattern {
 public:
  Pattern(std::string_view text, const std::string& where)
      : code_(nullptr, pcre2_code_free), where_(where) {
    int error = 0;
    PCRE2_SIZE offset = 0;
    code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                              PCRE2_ANCHORED | PCRE2_UTF, &error, &offset, nullptr));
    check(code_ != nullptr, "{}: not a regular expression: {:?} (at {})", where, text, offset);
  }

  bool matches(const std::string& subject) const {
    constexpr uint32_t kMaxSteps = 100'000;
    const std::unique_ptr<pcre2_match_context, decltype(&pcre2_match_context_free)> context(
        pcre2_match_context_create(nullptr), pcre2_match_context_free);
    pcre2_set_match_limit(context.get(), kMaxSteps);
    const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> data(
        pcre2_match_data_create(1, nullptr), pcre2_match_data_free);
    const int status = pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(subject.data()),
                                   subject.size(), 0, 0, data.get(), context.get());
    check(status >= 0 || status == PCRE2_ERROR_NOMATCH, "{}: regular expression fails on {} ({})",
          where_, subject, status);
    return status >= 0;
  }

 private:
  std::unique_ptr<pcre2_code, decltype(&pcre2_code_free)> code_;
  std::string where_;
};

/// Error unless the value is missing, null or empty.
void refuse_filled(const JsonView& config, std::string_view key) {
  const auto value = config.find(key);
  check(!value || value->raw().empty(), "{}.{}: not supported, expected it to be empty",
        config.where(), key);
}

void check_storage(const JsonView& config) {
  constexpr std::array<std::string_view, 5> kReadable{"int-quantized", "naive-quantized",
                                                      "pack-quantized", "mixed-precision", "dense"};
  const std::string storage = config.string_or("format", "dense");
  check(std::find(kReadable.begin(), kReadable.end(), storage) != kReadable.end(),
        "{}.format: expected one of {}, found {:?}", config.where(), fmt::join(kReadable, ", "),
        storage);
}

/// As StoredTensor::activation_bits.
std::optional<int> parse_activation_bits(const JsonView& group) {
  const auto input = group.find("input_activations");
  if (!input) {
    return 0;
  }
  const int64_t bits = input->at("num_bits").integer();
  const auto dynamic = input->find("dynamic");  // true, false or "local"
  const bool per_token = input->string_or("type", "int") == "int" &&
                         input->string_or("strategy", "") == "token" && dynamic &&
                         dynamic->raw() == Json(true) && input->boolean_or("symmetric", true);
  return per_token && (bits == 4 || bits == 8) ? std::optional(static_cast<int>(bits))
                                               : std::nullopt;
}

/// The scheme of a group's weights; nothing when they are not quantized.
std::optional<IntScheme> parse_scheme(const JsonView& group) {
  const auto weights = group.find("weights");
  if (!weights) {
    return std::nullopt;
  }
  const std::string where = weights->where();
  const std::string type = weights->string_or("type", "int");
  check(type == "int", "{}.type: expected int, found {:?}", where, type);
  IntScheme scheme;
  scheme.activation_bits = parse_activation_bits(group);
  const int64_t bits = weights->at("num_bits").integer();
  check(bits == 4 || bits == 8, "{}.num_bits: expected 4 or 8, found {}", where, bits);
  scheme.bits = static_cast<int>(bits);
  scheme.symmetric = weights->boolean_or("symmetric", true);
  const std::string strategy = weights->string_or("strategy", "");
  if (strategy == "group") {
    scheme.group_size = weights->at("group_size").integer(1);
  } else {
    check(strategy == "channel", "{}.strategy: expected channel or group, found {:?}", where,
          strategy);
  }
  const std::string order = weights->find("actorder") && weights->at("actorder").raw().is_string()
                                ? weights->at("actorder").string()
                                : "";
  check(order != "group" && order != "dynamic",
        "{}.actorder: columns in another order ({:?}) are not supported", where, order);
  return scheme;
}

}  // namespace

struct CompressedTensorsConfig::Target {
  enum class Kind { name, pattern, class_name };

  Kind kind;
  std::string text;
  std::optional<Pattern> pattern;
  std::optional<IntScheme> scheme;

  bool matches(const std::string& module) const {
    switch (kind) {
      case Kind::name:
        return text == module;
      case Kind::pattern:
        return pattern->matches(module);
      case Kind::class_name:
        return true;
    }
    return false;
  }
};

CompressedTensorsConfig::CompressedTensorsConfig(const JsonView& quantization_config)
    : where_(quantization_config.where()) {
  check_storage(quantization_config);
  refuse_filled(quantization_config, "transform_config");
  refuse_filled(quantization_config, "sparsity_config");
  const JsonView groups = quantization_config.at("config_groups");
  groups.expect_object();
  for (const auto& [group_name, value] : groups.raw().items()) {
    const JsonView group = groups.at(group_name);
    const std::optional<IntScheme> scheme = parse_scheme(group);
    const JsonView targets = group.at("targets");
    targets.expect_array();
    for (size_t i = 0; i < targets.size(); ++i) {
      const JsonView view = targets.at(i);
      Target target{Target::Kind::name, view.string(), std::nullopt, scheme};
      if (target.text.starts_with("re:")) {
        target.kind = Target::Kind::pattern;
        target.pattern.emplace(std::string_view(target.text).substr(3), view.where());
      } else if (target.text == "Linear") {
        target.kind = Target::Kind::class_name;
      }
      targets_.push_back(std::move(target));
    }
  }
  std::stable_sort(targets_.begin(), targets_.end(), [](const Target& a, const Target& b) {
    return std::tie(a.kind, a.text) < std::tie(b.kind, b.text);
  });
}

CompressedTensorsConfig::~CompressedTensorsConfig() = default;

IntScheme CompressedTensorsConfig::scheme_of(const std::string& module,
                                             const std::string& where) const {
  const auto target = std::find_if(targets_.begin(), targets_.end(),
                                   [&](const Target& t) { return t.matches(module); });
  check(target != targets_.end() && target->scheme.has_value(),
        "{}: quantized, but no entry of {}.config_groups with weights targets {}", where, where_,
        module);
  return *target->scheme;
}

int64_t group_columns(const RawTensor& weight, const IntScheme& scheme, int64_t cols) {
  if (scheme.group_size == 0) {
    return std::max<int64_t>(cols, 1);
  }
  check(cols % scheme.group_size == 0, "{}: {} columns, which groups of {} do not divide",
        weight.where(), cols, scheme.group_size);
  return scheme.group_size;
}

int64_t scale_columns(int64_t cols, int64_t group_columns) {
  return std::max<int64_t>(ceil_div(cols, group_columns), 1);
}

void refuse_column_order(const Claims& claims, const std::string& module) {
  const auto order = claims.find(module + ".weight_g_idx");
  if (order) {
    fail("{}: columns in another order are not supported", order->where());
  }
}

}  // namespace blockptq

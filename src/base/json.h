// Strict JSON: what config.json, indices, tokenizers and safetensors headers are read with.
//
// Stricter than the library underneath: duplicate keys and deep nesting are refused (both are used
// to smuggle), and every wrong type is an Error that names the file, the key, what was expected and
// what was found.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace blockptq {

using Json = nlohmann::json;

/// Parses `text`; `origin` names it in errors. Refuses invalid UTF-8, duplicate keys, nesting
/// deeper than 64, trailing bytes and numbers that no 64-bit integer or double holds.
Json parse_json(std::string_view text, std::string_view origin);

/// A JSON value together with where it was found, so that a wrong type names its place.
class JsonView {
 public:
  /// `value` must outlive the view.
  JsonView(const Json& value, std::string origin, std::string path = {})
      : JsonView(value, std::make_shared<const std::string>(std::move(origin)), std::move(path)) {}

  const Json& raw() const { return *value_; }
  /// "file: key" of this value.
  std::string where() const;

  bool contains(std::string_view key) const;
  /// The member `key`; Error when this is no object or lacks it.
  JsonView at(std::string_view key) const;
  /// The member `key`; nothing when it is missing or null.
  std::optional<JsonView> find(std::string_view key) const;
  /// The element `index` of an array; Error when this is no array or is shorter.
  JsonView at(size_t index) const;
  /// Length of an array or object; Error for anything else.
  size_t size() const;

  const std::string& string() const;
  bool boolean() const;
  double number() const;
  int64_t integer(int64_t min = std::numeric_limits<int64_t>::min(),
                  int64_t max = std::numeric_limits<int64_t>::max()) const;
  void expect_object() const;
  void expect_array() const;

  int64_t integer_or(std::string_view key, int64_t fallback,
                     int64_t min = std::numeric_limits<int64_t>::min(),
                     int64_t max = std::numeric_limits<int64_t>::max()) const;
  double number_or(std::string_view key, double fallback) const;
  bool boolean_or(std::string_view key, bool fallback) const;
  std::string string_or(std::string_view key, const std::string& fallback) const;

 private:
  JsonView(const Json& value, std::shared_ptr<const std::string> origin, std::string path)
      : value_(&value), origin_(std::move(origin)), path_(std::move(path)) {}

  [[noreturn]] void expected(std::string_view what) const;

  const Json* value_;
  std::shared_ptr<const std::string> origin_;  // shared with the views of its members
  std::string path_;
};

}  // namespace blockptq

#include "base/json.h"

#include <cmath>
#include <set>
#include <vector>

#include "base/error.h"
#include "base/file.h"

namespace blockptq {
namespace {

constexpr size_t kMaxDepth = 64;

/// Builds the document as the library does, and refuses what it would let pass.
class StrictParser : public nlohmann::detail::json_sax_dom_parser<Json> {
  using Base = nlohmann::detail::json_sax_dom_parser<Json>;

 public:
  StrictParser(Json& document, std::string_view origin) : Base(document, true), origin_(origin) {}

  bool start_object(std::size_t size) {
    descend();
    keys_.emplace_back();
    return Base::start_object(size);
  }
  bool end_object() {
    keys_.pop_back();
    --depth_;
    return Base::end_object();
  }
  bool start_array(std::size_t size) {
    descend();
    return Base::start_array(size);
  }
  bool end_array() {
    --depth_;
    return Base::end_array();
  }
  bool key(std::string& name) {
    check(keys_.back().insert(name).second, "{}: duplicate key {:?}", origin_, name);
    return Base::key(name);
  }
  bool number_float(double value, const std::string& text) {
    check(std::isfinite(value), "{}: number out of range: {}", origin_, text);
    return Base::number_float(value, text);
  }
  template <class Exception>
  bool parse_error(std::size_t position, const std::string& /*token*/, const Exception& exception) {
    // The library's message starts with an identifier in brackets, which says nothing to a user.
    std::string message = exception.what();
    if (const size_t end = message.find("] "); end != std::string::npos) {
      message.erase(0, end + 2);
    }
    fail("{}: not valid JSON at byte {}: {}", origin_, position, message);
  }

 private:
  void descend() {
    check(++depth_ <= kMaxDepth, "{}: JSON nested deeper than {}", origin_, kMaxDepth);
  }

  std::string_view origin_;
  std::vector<std::set<std::string>> keys_;
  size_t depth_ = 0;
};

}  // namespace

Json parse_json(std::string_view text, std::string_view origin) {
  refuse_lfs_pointer(text, origin);
  // The library takes a NUL for the end of the text.
  const size_t nul = text.find('\0');
  check(nul == std::string_view::npos, "{}: not valid JSON at byte {}: NUL", origin, nul);
  Json root;
  StrictParser parser(root, origin);
  Json::sax_parse(text, &parser);
  return root;
}

std::string JsonView::where() const {
  return path_.empty() ? *origin_ : fmt::format("{}: {}", *origin_, path_);
}

void JsonView::expected(std::string_view what) const {
  std::string found = value_->dump(-1, ' ', true, Json::error_handler_t::replace);
  if (found.size() > 60) {
    found = found.substr(0, 57) + "...";
  }
  fail("{}: expected {}, found {}", where(), what, found);
}

bool JsonView::contains(std::string_view key) const {
  return value_->is_object() && value_->contains(std::string(key));
}

JsonView JsonView::at(std::string_view key) const {
  expect_object();
  const auto member = value_->find(std::string(key));
  check(member != value_->end(), "{}: key '{}' is missing", where(), key);
  return {*member, origin_, path_.empty() ? std::string(key) : fmt::format("{}.{}", path_, key)};
}

std::optional<JsonView> JsonView::find(std::string_view key) const {
  expect_object();
  const auto member = value_->find(std::string(key));
  if (member == value_->end() || member->is_null()) {
    return std::nullopt;
  }
  return at(key);
}

JsonView JsonView::at(size_t index) const {
  expect_array();
  check(index < value_->size(), "{}: expected at least {} elements, found {}", where(), index + 1,
        value_->size());
  return {(*value_)[index], origin_, fmt::format("{}[{}]", path_, index)};
}

size_t JsonView::size() const {
  if (!value_->is_array() && !value_->is_object()) {
    expected("an array or object");
  }
  return value_->size();
}

const std::string& JsonView::string() const {
  if (!value_->is_string()) {
    expected("a string");
  }
  return value_->get_ref<const std::string&>();
}

bool JsonView::boolean() const {
  if (!value_->is_boolean()) {
    expected("true or false");
  }
  return value_->get<bool>();
}

double JsonView::number() const {
  if (!value_->is_number()) {
    expected("a number");
  }
  return value_->get<double>();
}

int64_t JsonView::integer(int64_t min, int64_t max) const {
  const bool fits = value_->is_number_integer() &&
                    !(value_->is_number_unsigned() &&
                      value_->get<uint64_t>() > uint64_t{std::numeric_limits<int64_t>::max()});
  const int64_t value = fits ? value_->get<int64_t>() : 0;
  if (!fits || value < min || value > max) {
    expected(min == std::numeric_limits<int64_t>::min() ? "an integer"
             : max == std::numeric_limits<int64_t>::max()
                 ? fmt::format("an integer >= {}", min)
                 : fmt::format("an integer from {} to {}", min, max));
  }
  return value;
}

void JsonView::expect_object() const {
  if (!value_->is_object()) {
    expected("an object");
  }
}

void JsonView::expect_array() const {
  if (!value_->is_array()) {
    expected("an array");
  }
}

int64_t JsonView::integer_or(std::string_view key, int64_t fallback, int64_t min,
                             int64_t max) const {
  const auto member = find(key);
  return member ? member->integer(min, max) : fallback;
}

double JsonView::number_or(std::string_view key, double fallback) const {
  const auto member = find(key);
  return member ? member->number() : fallback;
}

bool JsonView::boolean_or(std::string_view key, bool fallback) const {
  const auto member = find(key);
  return member ? member->boolean() : fallback;
}

std::string JsonView::string_or(std::string_view key, const std::string& fallback) const {
  const auto member = find(key);
  return member ? member->string() : fallback;
}

}  // namespace blockptq

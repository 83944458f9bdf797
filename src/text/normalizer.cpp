#include "text/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <vector>

#include "base/error.h"
#include "text/unicode_tables.h"
#include "text/utf8.h"

namespace blockptq {
namespace {

// Below U+0300 everything is composed already, has combining class 0 and composes with nothing
// before it. These are the code points whose UTF-8 begins with a byte below 0xCC.
constexpr uint8_t kFirstLeadByte = 0xCC;
constexpr char32_t kFirstCodePoint = 0x300;

bool is_nfc_at_a_glance(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<uint8_t>(c) < kFirstLeadByte; });
}

/// Characters that neither reorder nor compose in the reference, whatever utf8proc would do.
bool stays_in_place(char32_t code_point) {
  // Next to the trailing consonants of Hangul; utf8proc takes it for one and swallows it.
  constexpr char32_t kHangulTrailBase = 0x11A7;
  if (code_point == kHangulTrailBase) {
    return true;
  }
  const auto marks = unordered_marks();
  const auto range =
      std::lower_bound(marks.begin(), marks.end(), code_point,
                       [](const CodePointRange& r, char32_t value) { return r.last < value; });
  return range != marks.end() && range->first <= code_point;
}

/// Code points that may reorder and compose among themselves; appends their composition to a text.
class Cluster {
 public:
  explicit Cluster(std::string& output) : output_(output) {}

  void add(char32_t code_point) {
    std::array<utf8proc_int32_t, 4> parts{};  // the longest canonical decomposition
    int boundary = 0;
    const auto count =
        utf8proc_decompose_char(static_cast<utf8proc_int32_t>(code_point), parts.data(),
                                parts.size(), UTF8PROC_DECOMPOSE, &boundary);
    BPTQ_ASSERT(count >= 0 && count <= static_cast<utf8proc_ssize_t>(parts.size()));
    code_points_.insert(code_points_.end(), parts.begin(), parts.begin() + count);
  }

  void flush() {
    order_marks();
    const auto count = utf8proc_normalize_utf32(
        code_points_.data(), static_cast<utf8proc_ssize_t>(code_points_.size()),
        static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    BPTQ_ASSERT(count >= 0);
    for (utf8proc_ssize_t i = 0; i < count; ++i) {
      append_utf8(output_, static_cast<char32_t>(code_points_[i]));
    }
    code_points_.clear();
  }

 private:
  static int combining_class(utf8proc_int32_t code_point) {
    return utf8proc_get_property(code_point)->combining_class;
  }

  /// The canonical ordering: a stable sort of every run of marks. utf8proc's own takes quadratic
  /// time.
  void order_marks() {
    const auto is_mark = [](utf8proc_int32_t c) { return combining_class(c) != 0; };
    const auto by_class = [](utf8proc_int32_t a, utf8proc_int32_t b) {
      return combining_class(a) < combining_class(b);
    };
    for (auto begin = code_points_.begin(); begin != code_points_.end();) {
      begin = std::find_if(begin, code_points_.end(), is_mark);
      const auto end = std::find_if_not(begin, code_points_.end(), is_mark);
      std::stable_sort(begin, end, by_class);
      begin = end;
    }
  }

  std::string& output_;
  std::vector<utf8proc_int32_t> code_points_;
};

}  // namespace

std::string to_nfc(std::string_view text) {
  std::string output;
  output.reserve(text.size());
  Cluster cluster(output);
  for (size_t position = 0; position < text.size();) {
    const Utf8Char next = decode_utf8(text, position);
    BPTQ_ASSERT(next.valid);
    if (next.value < kFirstCodePoint || stays_in_place(next.value)) {
      cluster.flush();
    }
    cluster.add(next.value);
    if (stays_in_place(next.value)) {
      cluster.flush();
    }
    position += next.size;
  }
  cluster.flush();
  return output;
}

Normalizer Normalizer::parse(const JsonView& json) {
  Normalizer normalizer;
  if (json.raw().is_null()) {
    return normalizer;
  }
  const std::string& type = json.at("type").string();
  if (type == "Sequence") {
    const JsonView parts = json.at("normalizers");
    parts.expect_array();
    for (size_t i = 0; i < parts.size(); ++i) {
      normalizer.nfc_ |= parse(parts.at(i)).nfc_;
    }
    return normalizer;
  }
  check(type == "NFC", "{}: unsupported normalizer, expected null, NFC or Sequence, found '{}'",
        json.where(), type);
  normalizer.nfc_ = true;
  return normalizer;
}

std::string_view Normalizer::normalize(std::string_view text, std::string& storage) const {
  if (!nfc_ || is_nfc_at_a_glance(text)) {
    return text;
  }
  storage = to_nfc(text);
  return storage;
}

}  // namespace blockptq

#include "text/regex.h"

#include <array>

#include "base/error.h"
#include "text/regex_syntax.h"
#include "text/utf8.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace blockptq {
namespace {

std::string message_of(int status) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(status, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

PCRE2_SPTR code_units(std::string_view text) {
  return reinterpret_cast<PCRE2_SPTR>(text.data());
}

}  // namespace

Regex::Regex(const std::string& pcre2_pattern, const std::string& where) {
  int status = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code = pcre2_compile(code_units(pcre2_pattern), pcre2_pattern.size(),
                                   PCRE2_UTF | PCRE2_UCP, &status, &offset, nullptr);
  check(code != nullptr, "{}: invalid regex: {}", where, message_of(status));
  code_ = {code, [](const pcre2_code* c) { pcre2_code_free(const_cast<pcre2_code*>(c)); }};
  // Where memory must not be both written and executed there is no machine code; slower, not wrong.
  compiled_to_machine_code_ = pcre2_jit_compile(code, PCRE2_JIT_COMPLETE) == 0;
}

Regex Regex::parse(std::string_view pattern, const std::string& where) {
  return {to_pcre2_pattern(pattern, where), where};
}

Regex Regex::literal(std::string_view text) {
  return {to_pcre2_literal(text), "literal"};
}

RegexMatcher::RegexMatcher(const Regex& regex)
    : regex_(&regex), data_(pcre2_match_data_create(1, nullptr), pcre2_match_data_free) {
  BPTQ_ASSERT(data_ != nullptr);
}

bool RegexMatcher::search(std::string_view subject, size_t from, TextSpan& match) {
  const auto* code = regex_->code_.get();
  int status = PCRE2_ERROR_JIT_STACKLIMIT;
  if (regex_->compiled_to_machine_code_) {
    status =
        pcre2_jit_match(code, code_units(subject), subject.size(), from, 0, data_.get(), nullptr);
  }
  if (status == PCRE2_ERROR_JIT_STACKLIMIT) {
    // Machine code has 32 KiB of stack; the interpreter keeps its state on the heap.
    status = pcre2_match(code, code_units(subject), subject.size(), from,
                         PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, data_.get(), nullptr);
  }
  if (status == PCRE2_ERROR_NOMATCH) {
    return false;
  }
  check(status >= 0, "regex gave up on a text of {} bytes, searching from byte {}: {}",
        subject.size(), from, message_of(status));
  const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(data_.get());
  match = {offsets[0], offsets[1]};
  return true;
}

size_t RegexMatcher::code_point_size(std::string_view subject, size_t position) {
  return position < subject.size() ? decode_utf8(subject, position).size : 1;
}

}  // namespace blockptq

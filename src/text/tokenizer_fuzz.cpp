// A tokenizer.json from anywhere: refused with an Error or used, never more.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "text/tokenizer.h"

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer names it
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr size_t kMaxSize = size_t{1} << 16;
  constexpr std::string_view kConfig = R"({"add_bos_token": true, "bos_token": "<s>"})";
  constexpr std::string_view kText =
      "a ab\tabba  it's 12\u00e9e\u0301 <s>ab<s> \u4e00\U0001F44D\r\n";
  if (size > kMaxSize) {
    return 0;
  }
  const std::string_view json(reinterpret_cast<const char*>(data), size);
  for (const std::string_view config : {std::string_view(), kConfig}) {
    try {
      const auto tokenizer = blockptq::Tokenizer::parse(json, config, "fuzz/tokenizer.json");
      (void)tokenizer.decode(tokenizer.encode(kText));
    } catch (const blockptq::Error&) {  // refused, as it should be
    }
  }
  return 0;
}

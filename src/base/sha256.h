// SHA-256 of bytes that come piece by piece (OpenSSL).
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

struct evp_md_ctx_st;

namespace blockptq {

class Sha256 {
 public:
  Sha256();
  void update(const void* data, size_t size);
  /// Adds a field with its length in front, so that no two sequences of fields run into each other.
  void add_field(const void* data, size_t size);
  void add_field(std::string_view text) { add_field(text.data(), text.size()); }
  /// The digest in hex; the last call.
  std::string hex();

 private:
  std::unique_ptr<evp_md_ctx_st, void (*)(evp_md_ctx_st*)> context_;
};

}  // namespace blockptq

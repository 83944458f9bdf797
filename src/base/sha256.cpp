#include "base/sha256.h"

#include <fmt/ranges.h>
#include <openssl/evp.h>

#include <cstdint>
#include <vector>

#include "base/error.h"

namespace blockptq {

Sha256::Sha256() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
  BPTQ_ASSERT(context_ && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1);
}

void Sha256::update(const void* data, size_t size) {
  BPTQ_ASSERT(EVP_DigestUpdate(context_.get(), data, size) == 1);
}

void Sha256::add_field(const void* data, size_t size) {
  const auto length = static_cast<uint64_t>(size);
  update(&length, sizeof(length));
  update(data, size);
}

std::string Sha256::hex() {
  std::vector<unsigned char> digest(EVP_MAX_MD_SIZE);
  unsigned int size = 0;
  BPTQ_ASSERT(EVP_DigestFinal_ex(context_.get(), digest.data(), &size) == 1);
  digest.resize(size);
  return fmt::format("{:02x}", fmt::join(digest, ""));
}

}  // namespace blockptq

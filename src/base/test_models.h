// Where the models, texts and golden values of tests lie that stay outside the repository.
#pragma once

#include <cstdlib>
#include <filesystem>

namespace blockptq {

/// BLOCKPTQ_TEST_MODELS, or `shared` beside the project; may be absent: tests are skipped then.
inline std::filesystem::path test_models() {
  const char* root = std::getenv("BLOCKPTQ_TEST_MODELS");
  return root != nullptr ? std::filesystem::path(root)
                         : std::filesystem::path(BLOCKPTQ_SOURCE_DIR) / "../shared";
}

}  // namespace blockptq

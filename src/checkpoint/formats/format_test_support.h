// What the tests of formats share: a folder with a quantization_config.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "checkpoint/index.h"
#include "checkpoint/test_support.h"

namespace blockptq::testing_support {

class FormatTest : public testing::Test {
 protected:
  void configure(std::string_view quantization_config) {
    write_text(dir_ / "config.json",
               fmt::format(R"({{"quantization_config":{}}})", quantization_config));
  }
  Checkpoint open_with(const std::vector<TestTensor>& tensors) {
    write_shard(dir_ / "model.safetensors", tensors);
    return Checkpoint::open(dir_.path());
  }
  /// Why the folder of these tensors cannot be opened.
  std::string open_refusal(const std::vector<TestTensor>& tensors) {
    return refusal([&] { open_with(tensors); });
  }
  /// Why the first tensor of this folder cannot be decoded.
  std::string decode_refusal(const std::vector<TestTensor>& tensors) {
    const Checkpoint checkpoint = open_with(tensors);
    return refusal([&] { decode(checkpoint, checkpoint.tensors().front()); });
  }
  static std::vector<float> decode(const Checkpoint& checkpoint, const StoredTensor& tensor) {
    return decode_rows(checkpoint, tensor, 0, tensor.rows());
  }
  static std::vector<float> decode_rows(const Checkpoint& checkpoint, const StoredTensor& tensor,
                                        int64_t row_begin, int64_t row_end) {
    std::vector<float> out(static_cast<size_t>((row_end - row_begin) * tensor.row_size()));
    checkpoint.decode_rows(tensor, row_begin, row_end, kernels::FloatType::f32, out.data());
    return out;
  }
  /// Rows [row_begin, row_end) of `all`.
  static std::vector<float> rows_of(const std::vector<float>& all, int64_t row_size,
                                    int64_t row_begin, int64_t row_end) {
    return {all.begin() + row_begin * row_size, all.begin() + row_end * row_size};
  }

  TempDir dir_;
};

}  // namespace blockptq::testing_support

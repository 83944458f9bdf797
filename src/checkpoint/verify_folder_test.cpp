#include "checkpoint/verify_folder.h"

#include <limits>

#include "base/sha256.h"
#include "checkpoint/formats/format_test_support.h"

namespace blockptq {
namespace {

using testing::HasSubstr;
using testing_support::make_tensor;
using testing_support::refusal;
using testing_support::write_text;

class VerifyFolderTest : public testing_support::FormatTest {
 protected:
  void SetUp() override {
    write_text(dir_ / "config.json", "{}");
    testing_support::write_shard(dir_ / "model.safetensors",
                                 {make_tensor<float>("a", Dtype::f32, {3}, {1, 2, 3}),
                                  make_tensor<int64_t>("b", Dtype::i64, {1}, {7})});
  }
  void describe(const std::string& hash) {
    write_text(dir_ / std::string(kDescriptionName),
               fmt::format(R"({{"shards":{{"model.safetensors":{{"sha256":"{}"}}}}}})", hash));
  }
  FolderCheck verify() const { return verify_folder(Checkpoint::open(dir_.path())); }
};

TEST_F(VerifyFolderTest, ReadsEveryTensor) {
  const FolderCheck found = verify();
  EXPECT_EQ(found.tensors, 2);
  EXPECT_EQ(found.bytes, 3 * 4 + 8);
  EXPECT_EQ(found.hashed, 0);
}

TEST_F(VerifyFolderTest, ComparesChecksums) {
  const std::string bytes = read_file(dir_ / "model.safetensors");
  Sha256 hash;
  hash.update(bytes.data(), bytes.size());
  const std::string right = hash.hex();
  describe(right);
  EXPECT_EQ(verify().hashed, 1);
  describe(std::string(64, '0'));
  EXPECT_THAT(refusal([&] { verify(); }),
              testing::AllOf(HasSubstr("model.safetensors"), HasSubstr(right)));
}

TEST_F(VerifyFolderTest, ShardsThatAreNotDescribed) {
  write_text(dir_ / std::string(kDescriptionName), R"({"shards":{}})");
  EXPECT_THAT(refusal([&] { verify(); }), HasSubstr("model.safetensors"));
}

}  // namespace
}  // namespace blockptq

#include "checkpoint/index.h"

#include "checkpoint/test_support.h"

namespace blockptq {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing_support::make_tensor;
using testing_support::refusal;
using testing_support::TempDir;
using testing_support::write_shard;
using testing_support::write_text;

std::string index_text(std::string_view shard_json) {
  return fmt::format(R"({{"metadata":{{"total_size":1}},"weight_map":{{"a":{}}}}})", shard_json);
}

TEST(IndexTest, Parses) {
  const WeightMap map =
      parse_index(R"({"weight_map":{"a":"x.safetensors","b":"y.safetensors"}})", "i");
  EXPECT_EQ(map, (WeightMap{{"a", "x.safetensors"}, {"b", "y.safetensors"}}));
}

TEST(IndexTest, RefusesShardNamesThatAreNoPlainFileNames) {
  for (const char* name : {R"("")", R"(".")", R"("..")", R"("../x.safetensors")",
                           R"("d/x.safetensors")", R"("/x.safetensors")", R"("d\\x.safetensors")",
                           R"("x\u0000.safetensors")", R"("./x.safetensors")"}) {
    EXPECT_THAT(refusal([&] { parse_index(index_text(name), "dir/index"); }),
                HasSubstr("dir/index: weight_map.a: expected a plain file name, found \""))
        << name;
  }
  for (const char* name : {R"("x.bin")", R"("config.json")", R"("..safetensors.")"}) {
    EXPECT_THAT(refusal([&] { parse_index(index_text(name), "dir/index"); }),
                HasSubstr("ends in .safetensors"))
        << name;
  }
}

TEST(IndexTest, RefusesOtherDocuments) {
  const auto message = [](std::string_view text) {
    return refusal([&] { parse_index(text, "dir/index"); });
  };
  EXPECT_THAT(message("{}"), HasSubstr("dir/index: key 'weight_map' is missing"));
  EXPECT_THAT(message("[]"), HasSubstr("dir/index: expected an object, found []"));
  EXPECT_THAT(message(R"({"weight_map":[]})"), HasSubstr("weight_map: expected an object"));
  EXPECT_THAT(message(R"({"weight_map":{"a":1}})"), HasSubstr("weight_map.a: expected a string"));
  EXPECT_THAT(message(R"({"weight_map":{"a":"x.safetensors","a":"y.safetensors"}})"),
              HasSubstr("duplicate key"));
  EXPECT_THAT(message("not json"), HasSubstr("not valid JSON"));
  EXPECT_THAT(message("version https://git-lfs.github.com/spec/v1\n"),
              HasSubstr("git-LFS pointer"));
}

class FolderTest : public testing::Test {
 protected:
  void shard(std::string_view file, const std::vector<std::string>& names) {
    std::vector<testing_support::TestTensor> tensors;
    tensors.reserve(names.size());
    for (const std::string& name : names) {
      tensors.push_back(make_tensor<uint8_t>(name, Dtype::u8, {1}, {1}));
    }
    write_shard(dir_ / file, tensors);
  }
  void index(std::string_view weight_map) {
    write_text(dir_ / kIndexName, fmt::format(R"({{"weight_map":{}}})", weight_map));
  }
  std::string message() {
    return refusal([&] { open_shards(dir_.path()); });
  }

  TempDir dir_;
};

TEST_F(FolderTest, OpensShardsInOrderOfNames) {
  shard("y.safetensors", {"a"});
  shard("x.safetensors", {"b"});
  index(R"({"a":"y.safetensors","b":"x.safetensors"})");
  const auto shards = open_shards(dir_.path());
  ASSERT_EQ(shards.size(), 2);
  EXPECT_EQ(shards[0]->path().filename(), "x.safetensors");
}

TEST_F(FolderTest, OpensASingleFile) {
  shard("model.safetensors", {"a", "b"});
  const auto shards = open_shards(dir_.path());
  ASSERT_EQ(shards.size(), 1);
  EXPECT_EQ(shards[0]->header().tensors.size(), 2);
}

TEST_F(FolderTest, RefusesDisagreement) {
  index(R"({"a":"x.safetensors"})");
  EXPECT_THAT(message(), HasSubstr("x.safetensors: 1 of 1 shards are missing"));
  shard("x.safetensors", {});
  EXPECT_THAT(message(), HasSubstr("tensor a: listed in x.safetensors, which lacks it"));
  shard("x.safetensors", {"a", "b"});
  EXPECT_THAT(message(),
              HasSubstr("x.safetensors: tensor b: not listed in model.safetensors.index"));
  shard("x.safetensors", {"a"});
  shard("y.safetensors", {"a", "b"});
  index(R"({"a":"x.safetensors","b":"y.safetensors"})");
  EXPECT_THAT(message(), HasSubstr("y.safetensors: tensor a: also in x.safetensors"));
  shard("x.safetensors", {"b"});
  shard("y.safetensors", {"a"});
  EXPECT_THAT(message(), HasSubstr("tensor a: listed in x.safetensors, which lacks it"));
}

TEST_F(FolderTest, RefusesLinksThatLeaveTheFolder) {
  const TempDir elsewhere;
  shard("inside.safetensors", {"a"});
  fs::rename(dir_ / "inside.safetensors", elsewhere / "outside.safetensors");
  fs::create_symlink(elsewhere / "outside.safetensors", dir_ / "x.safetensors");
  index(R"({"a":"x.safetensors"})");
  EXPECT_THAT(message(), HasSubstr("x.safetensors: expected a file in the folder, found a link"));
  fs::remove(dir_ / kIndexName);
  fs::rename(dir_ / "x.safetensors", dir_ / kSingleShardName);
  EXPECT_THAT(message(), HasSubstr("found a link that leaves it"));
  // A folder whose name begins like the checkpoint's is another folder.
  const fs::path sibling = dir_.path().string() + "-sibling";
  fs::create_directory(sibling);
  fs::copy(elsewhere / "outside.safetensors", sibling / "x.safetensors");
  fs::remove(dir_ / kSingleShardName);
  fs::create_symlink(sibling / "x.safetensors", dir_ / kSingleShardName);
  EXPECT_THAT(message(), HasSubstr("found a link that leaves it"));
  fs::remove_all(sibling);
}

TEST_F(FolderTest, FollowsLinksInsideTheFolderAndItsHubCache) {
  shard("x.safetensors", {"a"});
  fs::create_symlink("x.safetensors", dir_ / kSingleShardName);
  EXPECT_EQ(open_shards(dir_.path()).size(), 1);
  fs::create_directories(dir_ / "snapshots/1234");
  fs::create_directory(dir_ / "blobs");
  fs::rename(dir_ / "x.safetensors", dir_ / "blobs/abcd");
  fs::create_symlink("../../blobs/abcd", dir_ / "snapshots/1234/model.safetensors");
  EXPECT_EQ(open_shards(dir_ / "snapshots/1234").size(), 1);
}

TEST_F(FolderTest, ReadsThroughALinkToTheFolder) {
  shard("model.safetensors", {"a"});
  const TempDir elsewhere;
  fs::create_directory_symlink(dir_.path(), elsewhere / "link");
  EXPECT_EQ(open_shards(elsewhere / "link").size(), 1);
}

TEST_F(FolderTest, SaysWhatItLookedFor) {
  EXPECT_THAT(message(), HasSubstr("no weights: expected model.safetensors.index.json or "
                                   "model.safetensors"));
  write_text(dir_ / "pytorch_model.bin", "");
  EXPECT_THAT(message(), HasSubstr(".bin files are pickles and are never read"));
  EXPECT_THAT(refusal([&] { open_shards(dir_ / "none"); }), HasSubstr("none: no such folder"));
  EXPECT_THAT(refusal([&] { open_shards(dir_ / "pytorch_model.bin"); }),
              HasSubstr("expected a checkpoint folder, found a file"));
  fs::create_symlink("none", dir_ / kSingleShardName);
  EXPECT_THAT(message(), HasSubstr("model.safetensors: shard is missing"));
}

}  // namespace
}  // namespace blockptq

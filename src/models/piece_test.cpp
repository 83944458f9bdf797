#include "models/piece.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.h"
#include "checkpoint/checkpoint.h"
#include "models/buffer_pool.h"
#include "models/ends.h"
#include "models/families.h"

namespace blockptq {
namespace {

class Pieces : public testing::Test {
 protected:
  at::Tensor whole(const ModelTensor& tensor) {
    at::Tensor value = at::empty(tensor.shape, at::kFloat);
    checkpoint_.decode(checkpoint_.at(tensor.name), kernels::FloatType::f32,
                       value.mutable_data_ptr());
    return value;
  }

  Checkpoint checkpoint_ =
      Checkpoint::open(std::filesystem::path(BLOCKPTQ_SOURCE_DIR) / "models/tiny-v32-fp8");
  std::unique_ptr<Model> model_ = open_model(checkpoint_);
  std::vector<ModelTensor> table_ = model_->tensors();
};

TEST_F(Pieces, CoverABlockInTheOrderOfUse) {
  const auto pieces = block_pieces(table_, 2, 3);
  ASSERT_EQ(pieces.size(), 2U + 16U);
  EXPECT_EQ(pieces[0].tensors.front().spec.unit, Unit::attention);
  EXPECT_EQ(pieces[1].tensors.front().spec.unit, Unit::feed_forward);
  EXPECT_EQ(pieces[17].tensors.front().spec.expert, 15);
  EXPECT_EQ(block_pieces(table_, 0, 2).size(), 4U);
}

TEST_F(Pieces, ArriveInOrderWithTheValuesOfTheCheckpoint) {
  PieceLoader loader(checkpoint_, at::kFloat, at::kCPU);
  const auto pieces = block_pieces(table_, 2, 3);
  PieceStream stream(loader, pieces);
  for (const PieceSpec& spec : pieces) {
    const Piece piece = stream.next();
    for (const TensorSlice& slice : spec.tensors) {
      EXPECT_TRUE(at::equal(piece.tensor(slice.spec.name), whole(slice.spec))) << slice.spec.name;
    }
  }
}

TEST_F(Pieces, RowTilesMakeUpTheTensor) {
  const ModelTensor& head = head_weight(table_, Unit::head);
  PieceLoader loader(checkpoint_, at::kFloat, at::kCPU);
  const auto tiles = row_pieces(head, 1000);
  ASSERT_EQ(tiles.size(), 5U);
  std::vector<at::Tensor> parts;
  PieceStream stream(loader, tiles);
  for (size_t i = 0; i < tiles.size(); ++i) {
    parts.push_back(stream.next().only().clone());
  }
  EXPECT_TRUE(at::equal(at::cat(parts), whole(head)));
}

TEST_F(Pieces, AStreamMayBeLeftEarly) {
  PieceLoader loader(checkpoint_, at::kBFloat16, at::kCPU);
  PieceStream stream(loader, block_pieces(table_, 0, 6));
  stream.next();
}

TEST_F(Pieces, EmbeddingRowsWithRepeats) {
  const ModelTensor& embedding = tensor_of(table_, Unit::embedding, "embedding");
  const std::vector<int32_t> ids{7, 4095, 7, 0, 12};
  const at::Tensor rows = embed(checkpoint_, embedding, ids, at::kFloat);
  const at::Tensor all = whole(embedding);
  for (size_t i = 0; i < ids.size(); ++i) {
    EXPECT_TRUE(at::equal(rows[static_cast<int64_t>(i)], all[ids[i]]));
  }
}

TEST(BufferPool, GivesFreedMemoryAgain) {
  BufferPool pool;
  const void* first = nullptr;
  {
    const auto buffer = pool.allocate(1000);
    first = buffer.get();
    EXPECT_EQ(reinterpret_cast<uintptr_t>(first) % 64, 0U);
  }
  const auto again = pool.allocate(900);
  EXPECT_EQ(again.get(), first);
  EXPECT_NE(pool.allocate(900).get(), first);
}

TEST(BufferPool, BuffersOutliveThePool) {
  std::shared_ptr<std::byte> buffer;
  {
    BufferPool pool;
    buffer = pool.allocate(64);
  }
  buffer.get()[63] = std::byte{1};
}

}  // namespace
}  // namespace blockptq

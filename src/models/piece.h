// Weights on their way through the machine: a piece is loaded, used and dropped as a whole, and the
// next one is decoded while the current one computes.
#pragma once

#include <ATen/core/Tensor.h>

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "exec/exec.h"
#include "models/buffer_pool.h"
#include "models/model.h"

namespace blockptq {

class Checkpoint;
struct StoredTensor;

/// Rows [row_begin, row_end) of a tensor of the model's table (row_end -1: all).
struct TensorSlice {
  ModelTensor spec;
  int64_t row_begin = 0;
  int64_t row_end = -1;
};

struct PieceSpec {
  std::vector<TensorSlice> tensors;
};

/// The tensors of a loaded piece.
class Piece {
 public:
  /// The tensor `name`; BPTQ_ASSERT that the piece has it.
  const at::Tensor& tensor(std::string_view name) const;
  Weight weight(std::string_view name) const;
  /// The tensor of a piece that has but one.
  const at::Tensor& only() const;

  /// Every weight (matrix) of the compute type.
  std::vector<Weight> weights() const;
  /// Puts `value` in the place of the tensor `name`.
  void replace(std::string_view name, at::Tensor value);

 private:
  friend class PieceLoader;
  struct Entry {
    std::string role;
    at::Tensor value;
    bool keep_fp32 = false;
  };
  std::map<std::string, Entry, std::less<>> entries_;
};

/// What a weight becomes on its way in: called on the loading thread with the weight in fp32, as it
/// is in the checkpoint; returns what takes its place in the piece, in any floating-point type.
struct WeightTransform {
  std::function<bool(const ModelTensor&)> wants;  ///< weights that are transformed
  std::function<at::Tensor(const ModelTensor&, const at::Tensor& w_OI)> apply;
};

/// Reads pieces from a checkpoint.
class PieceLoader {
 public:
  /// Matrices become `type` (those of the table that keep fp32, fp32) on `device`.
  PieceLoader(const Checkpoint& checkpoint, at::ScalarType type, at::Device device,
              std::optional<WeightTransform> transform = std::nullopt);

  Piece load(const PieceSpec& spec);
  /// Host bytes that a loaded piece takes.
  int64_t loaded_bytes(const PieceSpec& spec) const;
  /// Asks the kernel to read the piece from disk.
  void prefetch(const PieceSpec& spec) const;

 private:
  at::ScalarType type_of(const ModelTensor& spec) const;
  void load_transformed(const StoredTensor& stored, const ModelTensor& spec,
                        at::Tensor& out_OI) const;

  const Checkpoint& checkpoint_;
  at::ScalarType type_;
  at::Device device_;
  std::optional<WeightTransform> transform_;
  BufferPool pool_;
};

/// Loads pieces one after the other on a thread of its own, one ahead of the consumer as far as
/// memory allows: the pieces held together never exceed one and a half times the largest, or two
/// experts.
class PieceStream {
 public:
  PieceStream(PieceLoader& loader, std::vector<PieceSpec> specs);
  /// Stops the thread; pieces not yet taken are dropped.
  ~PieceStream();
  PieceStream(const PieceStream&) = delete;
  PieceStream& operator=(const PieceStream&) = delete;

  /// The next piece in order; an error of its loading is thrown here. The previous piece counts as
  /// dropped from now on: the caller must not hold it any more.
  Piece next();

 private:
  void run();
  bool may_load(size_t index) const;

  PieceLoader& loader_;
  std::vector<PieceSpec> specs_;
  std::vector<int64_t> bytes_;
  int64_t limit_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<Piece> ready_;
  std::exception_ptr error_;
  size_t taken_ = 0;      ///< pieces handed out so far
  bool waiting_ = false;  ///< the consumer has dropped its piece and waits for the next
  bool stop_ = false;
  std::thread thread_;
};

/// The pieces of the table in its order: one for each run of tensors of the same unit, block and
/// expert, for blocks [begin, end).
std::vector<PieceSpec> block_pieces(const std::vector<ModelTensor>& table, int64_t begin,
                                    int64_t end);

/// The slices of one tensor of at most `max_rows` rows each, a piece each.
std::vector<PieceSpec> row_pieces(const ModelTensor& spec, int64_t max_rows);

}  // namespace blockptq

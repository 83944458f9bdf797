// Weights on their way through the machine: a piece is loaded, used and dropped as a whole, and the
// next one is decoded while the current one computes.
#pragma once

#include <ATen/core/Tensor.h>

#include <condition_variable>
#include <cstddef>
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

#include "base/ranks.h"
#include "exec/exec.h"
#include "models/buffer_pool.h"
#include "models/model.h"
#include "quant/int_linear.h"

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
  int reader = -1;  ///< the rank that reads it for all; -1: whoever wants it reads it
};

/// The tensors of a loaded piece.
class Piece {
 public:
  /// The tensor `name`; BPTQ_ASSERT that the piece has it (in floating point).
  const at::Tensor& tensor(std::string_view name) const;
  const Weight& weight(std::string_view name) const;
  /// The tensor of a piece that has but one.
  const at::Tensor& only() const;

  /// Everything, norms as well.
  std::vector<Weight> tensors() const;
  /// Every weight (matrix) of the compute type, or of integers.
  std::vector<Weight> weights() const;
  /// Puts `weight` in the place of the tensor of its name.
  void replace(Weight weight);

 private:
  friend class PieceLoader;
  struct Entry {
    Weight weight;
    bool keep_fp32 = false;
  };
  const Entry& entry(std::string_view name) const;

  std::map<std::string, Entry, std::less<>> entries_;
};

using WeightFilter = std::function<bool(const ModelTensor&)>;

/// What a tensor becomes on its way in: called on the loading thread with it (or with the rows that
/// the piece has) in fp32, as it is in the checkpoint; returns what takes its place in the piece,
/// in any floating-point type.
struct WeightTransform {
  WeightFilter wants;  ///< tensors that are transformed
  std::function<at::Tensor(const ModelTensor&, const at::Tensor& w_OI)> apply;
};

/// Reads pieces from a checkpoint.
class PieceLoader {
 public:
  /// Matrices become `type` (those of the table that keep fp32, fp32) on `device`, but for those
  /// that `integers` wants: their codes and scales stay as they are stored (Weight::integers; the
  /// checkpoint has `row_codes` of them). A piece with a reader comes from it to all `ranks`
  /// (streams that load at the same time need channels of their own).
  PieceLoader(const Checkpoint& checkpoint, at::ScalarType type, at::Device device,
              std::optional<WeightTransform> transform = std::nullopt, WeightFilter integers = {},
              Ranks& ranks = alone(), Channel channel = Channel::weights);

  Piece load(const PieceSpec& spec);
  /// Host bytes that a loaded piece takes.
  int64_t loaded_bytes(const PieceSpec& spec) const;
  /// Asks the kernel to read the piece from disk.
  void prefetch(const PieceSpec& spec) const;

 private:
  at::ScalarType type_of(const ModelTensor& spec) const;
  bool stays_integer(const ModelTensor& spec) const { return integers_ && integers_(spec); }
  bool is_sent(const PieceSpec& spec) const { return spec.reader >= 0 && ranks_.shared(); }
  bool reads(const PieceSpec& spec) const { return !is_sent(spec) || spec.reader == ranks_.rank(); }
  int64_t slice_bytes(const TensorSlice& slice) const;
  int held_bits(const ModelTensor& spec) const;
  void decode_rows(const TensorSlice& slice, at::ScalarType type, void* to) const;
  void decode_value(const TensorSlice& slice, std::byte* to) const;
  void decode_integers(const TensorSlice& slice, std::byte* to) const;
  Weight weight_at(const TensorSlice& slice, std::byte* at,
                   const std::shared_ptr<std::byte>& buffer) const;

  const Checkpoint& checkpoint_;
  at::ScalarType type_;
  at::Device device_;
  std::optional<WeightTransform> transform_;
  WeightFilter integers_;
  Ranks& ranks_;
  Channel channel_;
  BufferPool pool_;
};

/// Of the largest piece, the share that may be loaded beside it while it computes.
constexpr double kHalfAhead = 0.5;
/// For work beside which loading takes no time.
constexpr double kNoneAhead = 0;

/// Bytes of the pieces that a stream of `specs` holds together at most: 1 + `ahead` times the
/// largest, or two experts.
int64_t held_bytes(const PieceLoader& loader, const std::vector<PieceSpec>& specs,
                   double ahead = kHalfAhead);

/// Loads pieces one after the other on a thread of its own, one ahead of the consumer as far as
/// held_bytes allows.
class PieceStream {
 public:
  PieceStream(PieceLoader& loader, std::vector<PieceSpec> specs, double ahead = kHalfAhead);
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
  int64_t limit_;
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

/// The pieces that `ranks` make of `pieces`: a routed expert is for one rank alone, and every other
/// piece is read by one rank for all.
std::vector<PieceSpec> shared_pieces(const std::vector<PieceSpec>& pieces, const Ranks& ranks);

/// The slices of one tensor of at most `max_rows` rows each, a piece each.
std::vector<PieceSpec> row_pieces(const ModelTensor& spec, int64_t max_rows);

}  // namespace blockptq

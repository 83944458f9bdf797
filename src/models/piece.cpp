#include "models/piece.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "base/size.h"
#include "checkpoint/checkpoint.h"
#include "kernels/int_linear.h"
#include "tensor/float_type.h"

namespace blockptq {
namespace {

constexpr int64_t kAlignment = 64;
constexpr int64_t kPortionBytes = 4 << 20;  // of codes that are packed on their way in

int64_t row_end(const TensorSlice& slice) {
  return slice.row_end < 0 ? slice.spec.shape.front() : slice.row_end;
}

std::vector<int64_t> slice_shape(const TensorSlice& slice) {
  std::vector<int64_t> shape = slice.spec.shape;
  shape.front() = row_end(slice) - slice.row_begin;
  return shape;
}

int64_t aligned(int64_t bytes) {
  return ceil_div(bytes, kAlignment) * kAlignment;
}

/// A tensor in memory that `buffer` keeps.
at::Tensor tensor_at(std::byte* data, const std::vector<int64_t>& shape, at::ScalarType type,
                     const std::shared_ptr<std::byte>& buffer) {
  return at::from_blob(
      data, shape, [buffer](void*) {}, at::TensorOptions(type));
}

bool same_piece(const ModelTensor& a, const ModelTensor& b) {
  return a.unit == b.unit && a.block == b.block && a.expert == b.expert;
}

}  // namespace

const Piece::Entry& Piece::entry(std::string_view name) const {
  const auto found = entries_.find(name);
  BPTQ_ASSERT(found != entries_.end());
  return found->second;
}

const at::Tensor& Piece::only() const {
  BPTQ_ASSERT(entries_.size() == 1);
  return tensor(entries_.begin()->first);
}

const at::Tensor& Piece::tensor(std::string_view name) const {
  const Weight& found = weight(name);
  BPTQ_ASSERT(found.value.defined());
  return found.value;
}

const Weight& Piece::weight(std::string_view name) const {
  return entry(name).weight;
}

std::vector<Weight> Piece::weights() const {
  std::vector<Weight> result;
  for (const auto& [name, found] : entries_) {
    const bool is_matrix = found.weight.integers || found.weight.value.dim() == 2;
    if (is_matrix && !found.keep_fp32) {
      result.push_back(found.weight);
    }
  }
  return result;
}

std::vector<Weight> Piece::tensors() const {
  std::vector<Weight> result;
  for (const auto& [name, found] : entries_) {
    result.push_back(found.weight);
  }
  return result;
}

void Piece::replace(Weight weight) {
  const auto found = entries_.find(weight.name);
  BPTQ_ASSERT(found != entries_.end());
  found->second.weight = std::move(weight);
}

PieceLoader::PieceLoader(const Checkpoint& checkpoint, at::ScalarType type, at::Device device,
                         std::optional<WeightTransform> transform, WeightFilter integers,
                         Ranks& ranks, Channel channel)
    : checkpoint_(checkpoint),
      type_(type),
      device_(device),
      transform_(std::move(transform)),
      integers_(std::move(integers)),
      ranks_(ranks),
      channel_(channel) {}

/// How the codes of a weight are held.
int PieceLoader::held_bits(const ModelTensor& spec) const {
  return checkpoint_.at(spec.source()).bits > 4 ? 8 : 4;
}

at::ScalarType PieceLoader::type_of(const ModelTensor& spec) const {
  return spec.keep_fp32 ? at::kFloat : type_;
}

int64_t PieceLoader::slice_bytes(const TensorSlice& slice) const {
  const std::vector<int64_t> shape = slice_shape(slice);
  if (stays_integer(slice.spec)) {
    return aligned(shape[0] * IntWeight::row_bytes(held_bits(slice.spec), shape[1])) +
           aligned(shape[0] * int64_t{sizeof(float)});
  }
  const auto element = static_cast<int64_t>(at::elementSize(type_of(slice.spec)));
  return aligned(std::accumulate(shape.begin(), shape.end(), element, std::multiplies<>()));
}

int64_t PieceLoader::loaded_bytes(const PieceSpec& spec) const {
  int64_t bytes = 0;
  for (const TensorSlice& slice : spec.tensors) {
    bytes += slice_bytes(slice);
  }
  return bytes;
}

void PieceLoader::prefetch(const PieceSpec& spec) const {
  if (!reads(spec)) {
    return;
  }
  for (const TensorSlice& slice : spec.tensors) {
    if (slice.row_begin == 0 && slice.row_end < 0) {
      checkpoint_.prefetch(*checkpoint_.find(slice.spec.source()));
    }
  }
}

void PieceLoader::decode_rows(const TensorSlice& slice, at::ScalarType type, void* to) const {
  const StoredTensor& stored = checkpoint_.at(slice.spec.source());
  const bool matrix = slice.spec.shape.size() == 2;
  checkpoint_.decode_rows(stored, matrix ? slice.row_begin : 0, matrix ? row_end(slice) : 1,
                          float_type(type), to);
}

void PieceLoader::decode_value(const TensorSlice& slice, std::byte* to) const {
  const at::ScalarType type = type_of(slice.spec);
  if (!transform_ || !transform_->wants(slice.spec)) {
    decode_rows(slice, type, to);
    return;
  }
  const at::Tensor w_OI = at::empty(slice_shape(slice), at::kFloat);
  decode_rows(slice, at::kFloat, w_OI.mutable_data_ptr());
  at::from_blob(to, w_OI.sizes(), at::TensorOptions(type))
      .copy_(transform_->apply(slice.spec, w_OI));
}

/// The codes, then the scales.
void PieceLoader::decode_integers(const TensorSlice& slice, std::byte* to) const {
  const StoredTensor& stored = checkpoint_.at(slice.spec.source());
  const int64_t rows = row_end(slice) - slice.row_begin;
  const int64_t inputs = stored.row_size();
  const int bits = held_bits(slice.spec);
  const int64_t row_bytes = IntWeight::row_bytes(bits, inputs);
  auto* scales = reinterpret_cast<float*>(to + aligned(rows * row_bytes));
  if (bits == 8) {
    checkpoint_.decode_codes(stored, slice.row_begin, row_end(slice), reinterpret_cast<int8_t*>(to),
                             scales);
    return;
  }
  const int64_t portion = std::max<int64_t>(kPortionBytes / inputs, 1);
  std::vector<int8_t> codes(static_cast<size_t>(std::min(portion, rows) * inputs));
  for (int64_t begin = 0; begin < rows; begin += portion) {
    const int64_t end = std::min(begin + portion, rows);
    checkpoint_.decode_codes(stored, slice.row_begin + begin, slice.row_begin + end, codes.data(),
                             scales + begin);
    for (int64_t row = begin; row < end; ++row) {
      kernels::pack_int4(codes.data() + (row - begin) * inputs, inputs,
                         reinterpret_cast<uint8_t*>(to) + row * row_bytes);
    }
  }
}

/// The weight whose bytes are at `at`.
Weight PieceLoader::weight_at(const TensorSlice& slice, std::byte* at,
                              const std::shared_ptr<std::byte>& buffer) const {
  Weight weight{slice.spec.name, slice.spec.role, {}};
  if (!stays_integer(slice.spec)) {
    weight.value = tensor_at(at, slice_shape(slice), type_of(slice.spec), buffer).to(device_);
    return weight;
  }
  const int64_t rows = row_end(slice) - slice.row_begin;
  const int64_t inputs = slice.spec.shape[1];
  const int bits = held_bits(slice.spec);
  const int64_t row_bytes = IntWeight::row_bytes(bits, inputs);
  const at::ScalarType type = bits == 8 ? at::kChar : at::kByte;
  weight.integers =
      IntWeight{tensor_at(at, {rows, row_bytes}, type, buffer).to(device_),
                tensor_at(at + aligned(rows * row_bytes), {rows}, at::kFloat, buffer).to(device_),
                bits, inputs};
  return weight;
}

Piece PieceLoader::load(const PieceSpec& spec) {
  const int64_t bytes = loaded_bytes(spec);
  const auto buffer = pool_.allocate(static_cast<size_t>(bytes));
  if (reads(spec)) {
    std::byte* cursor = buffer.get();
    for (const TensorSlice& slice : spec.tensors) {
      stays_integer(slice.spec) ? decode_integers(slice, cursor) : decode_value(slice, cursor);
      cursor += slice_bytes(slice);
    }
  }
  if (is_sent(spec)) {
    broadcast(ranks_, channel_, buffer.get(), bytes, spec.reader);
  }
  Piece piece;
  std::byte* cursor = buffer.get();
  for (const TensorSlice& slice : spec.tensors) {
    piece.entries_[slice.spec.name] = {weight_at(slice, cursor, buffer), slice.spec.keep_fp32};
    cursor += slice_bytes(slice);
  }
  return piece;
}

int64_t held_bytes(const PieceLoader& loader, const std::vector<PieceSpec>& specs, double ahead) {
  int64_t most = 0;
  for (const PieceSpec& spec : specs) {
    const int64_t bytes = loader.loaded_bytes(spec);
    const bool expert = spec.tensors.front().spec.unit == Unit::expert;
    const double beside = expert ? 1 : ahead;
    most = std::max(most, bytes + static_cast<int64_t>(beside * static_cast<double>(bytes)));
  }
  return most;
}

PieceStream::PieceStream(PieceLoader& loader, std::vector<PieceSpec> specs, double ahead)
    : loader_(loader), specs_(std::move(specs)), limit_(held_bytes(loader, specs_, ahead)) {
  for (const PieceSpec& spec : specs_) {
    bytes_.push_back(loader_.loaded_bytes(spec));
  }
  thread_ = std::thread([this] { run(); });
}

PieceStream::~PieceStream() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

/// A piece may be loaded when all before it are taken, and the one in use leaves room or is
/// dropped.
bool PieceStream::may_load(size_t index) const {
  if (ready_ || index > taken_) {
    return false;
  }
  const int64_t in_use = taken_ == 0 || waiting_ ? 0 : bytes_[taken_ - 1];
  return in_use + bytes_[index] <= limit_;
}

void PieceStream::run() {
  for (size_t index = 0; index < specs_.size(); ++index) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return stop_ || may_load(index); });
    if (stop_) {
      return;
    }
    lock.unlock();
    std::optional<Piece> piece;
    std::exception_ptr error;
    try {
      if (index + 1 < specs_.size()) {
        loader_.prefetch(specs_[index + 1]);
      }
      piece = loader_.load(specs_[index]);
    } catch (...) {
      error = std::current_exception();
    }
    lock.lock();
    ready_ = std::move(piece);
    error_ = error;
    lock.unlock();
    changed_.notify_all();
    if (error) {
      return;
    }
  }
}

Piece PieceStream::next() {
  std::unique_lock lock(mutex_);
  BPTQ_ASSERT(taken_ < specs_.size());
  waiting_ = true;
  changed_.notify_all();
  changed_.wait(lock, [&] { return ready_ || error_; });
  waiting_ = false;
  if (error_) {
    std::rethrow_exception(error_);
  }
  Piece piece = std::move(*ready_);
  ready_.reset();
  ++taken_;
  lock.unlock();
  changed_.notify_all();
  return piece;
}

std::vector<PieceSpec> block_pieces(const std::vector<ModelTensor>& table, int64_t begin,
                                    int64_t end) {
  std::vector<PieceSpec> pieces;
  const ModelTensor* previous = nullptr;
  for (const ModelTensor& spec : table) {
    const bool in_block = spec.unit == Unit::attention || spec.unit == Unit::feed_forward ||
                          spec.unit == Unit::expert;
    if (!in_block || spec.block < begin || spec.block >= end) {
      continue;
    }
    if (previous == nullptr || !same_piece(*previous, spec)) {
      pieces.emplace_back();
    }
    pieces.back().tensors.push_back({spec});
    previous = &spec;
  }
  return pieces;
}

std::vector<PieceSpec> shared_pieces(const std::vector<PieceSpec>& pieces, const Ranks& ranks) {
  std::vector<PieceSpec> result;
  int64_t turn = 0;
  for (const PieceSpec& piece : pieces) {
    const ModelTensor& first = piece.tensors.front().spec;
    if (first.unit == Unit::expert) {
      if (ranks.does(first.expert)) {
        result.push_back(piece);
      }
      continue;
    }
    // By twos: attention and feed-forward half of a block have one reader.
    result.push_back(piece);
    result.back().reader = static_cast<int>(turn++ / 2 % ranks.size());
  }
  return result;
}

std::vector<PieceSpec> row_pieces(const ModelTensor& spec, int64_t max_rows) {
  std::vector<PieceSpec> pieces;
  for (int64_t begin = 0; begin < spec.shape.front(); begin += max_rows) {
    pieces.push_back({{{spec, begin, std::min(begin + max_rows, spec.shape.front())}}});
  }
  return pieces;
}

}  // namespace blockptq

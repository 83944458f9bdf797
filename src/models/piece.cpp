#include "models/piece.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "base/size.h"
#include "checkpoint/checkpoint.h"
#include "tensor/float_type.h"

namespace blockptq {
namespace {

constexpr int64_t kAlignment = 64;

int64_t row_end(const TensorSlice& slice) {
  return slice.row_end < 0 ? slice.spec.shape.front() : slice.row_end;
}

std::vector<int64_t> slice_shape(const TensorSlice& slice) {
  std::vector<int64_t> shape = slice.spec.shape;
  shape.front() = row_end(slice) - slice.row_begin;
  return shape;
}

int64_t slice_bytes(const TensorSlice& slice, at::ScalarType type) {
  const auto shape = slice_shape(slice);
  const int64_t bytes = std::accumulate(
      shape.begin(), shape.end(), static_cast<int64_t>(at::elementSize(type)), std::multiplies<>());
  return ceil_div(bytes, kAlignment) * kAlignment;
}

bool same_piece(const ModelTensor& a, const ModelTensor& b) {
  return a.unit == b.unit && a.block == b.block && a.expert == b.expert;
}

}  // namespace

const at::Tensor& Piece::only() const {
  BPTQ_ASSERT(entries_.size() == 1);
  return entries_.begin()->second.value;
}

const at::Tensor& Piece::tensor(std::string_view name) const {
  const auto entry = entries_.find(name);
  BPTQ_ASSERT(entry != entries_.end());
  return entry->second.value;
}

Weight Piece::weight(std::string_view name) const {
  const auto entry = entries_.find(name);
  BPTQ_ASSERT(entry != entries_.end());
  return {entry->first, entry->second.role, entry->second.value};
}

std::vector<Weight> Piece::weights() const {
  std::vector<Weight> result;
  for (const auto& [name, entry] : entries_) {
    if (entry.value.dim() == 2 && !entry.keep_fp32) {
      result.push_back({name, entry.role, entry.value});
    }
  }
  return result;
}

void Piece::replace(std::string_view name, at::Tensor value) {
  const auto entry = entries_.find(name);
  BPTQ_ASSERT(entry != entries_.end());
  entry->second.value = std::move(value);
}

PieceLoader::PieceLoader(const Checkpoint& checkpoint, at::ScalarType type, at::Device device,
                         std::optional<WeightTransform> transform)
    : checkpoint_(checkpoint), type_(type), device_(device), transform_(std::move(transform)) {}

at::ScalarType PieceLoader::type_of(const ModelTensor& spec) const {
  return spec.keep_fp32 ? at::kFloat : type_;
}

int64_t PieceLoader::loaded_bytes(const PieceSpec& spec) const {
  int64_t bytes = 0;
  for (const TensorSlice& slice : spec.tensors) {
    bytes += slice_bytes(slice, type_of(slice.spec));
  }
  return bytes;
}

void PieceLoader::prefetch(const PieceSpec& spec) const {
  for (const TensorSlice& slice : spec.tensors) {
    if (slice.row_begin == 0 && slice.row_end < 0) {
      checkpoint_.prefetch(*checkpoint_.find(slice.spec.name));
    }
  }
}

/// Decodes the weight to fp32 and puts what it becomes into out_OI.
void PieceLoader::load_transformed(const StoredTensor& stored, const ModelTensor& spec,
                                   at::Tensor& out_OI) const {
  at::Tensor w_OI = at::empty(out_OI.sizes(), at::kFloat);
  checkpoint_.decode(stored, kernels::FloatType::f32, w_OI.mutable_data_ptr());
  out_OI.copy_(transform_->apply(spec, w_OI));
}

Piece PieceLoader::load(const PieceSpec& spec) {
  const auto buffer = pool_.allocate(static_cast<size_t>(loaded_bytes(spec)));
  std::byte* cursor = buffer.get();
  Piece piece;
  for (const TensorSlice& slice : spec.tensors) {
    const at::ScalarType type = type_of(slice.spec);
    const StoredTensor* stored = checkpoint_.find(slice.spec.name);
    BPTQ_ASSERT(stored != nullptr);
    at::Tensor value = at::from_blob(
        cursor, slice_shape(slice), [buffer](void*) {}, at::TensorOptions(type));
    if (transform_ && transform_->wants(slice.spec)) {
      load_transformed(*stored, slice.spec, value);
    } else if (slice.spec.shape.size() == 2) {
      checkpoint_.decode_rows(*stored, slice.row_begin, row_end(slice), float_type(type), cursor);
    } else {
      checkpoint_.decode_rows(*stored, 0, 1, float_type(type), cursor);
    }
    piece.entries_[slice.spec.name] = {slice.spec.role, value.to(device_), slice.spec.keep_fp32};
    cursor += slice_bytes(slice, type);
  }
  return piece;
}

PieceStream::PieceStream(PieceLoader& loader, std::vector<PieceSpec> specs)
    : loader_(loader), specs_(std::move(specs)) {
  for (const PieceSpec& spec : specs_) {
    bytes_.push_back(loader_.loaded_bytes(spec));
    const bool expert = spec.tensors.front().spec.unit == Unit::expert;
    limit_ = std::max(limit_, bytes_.back() + (expert ? bytes_.back() : bytes_.back() / 2));
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

std::vector<PieceSpec> row_pieces(const ModelTensor& spec, int64_t max_rows) {
  std::vector<PieceSpec> pieces;
  for (int64_t begin = 0; begin < spec.shape.front(); begin += max_rows) {
    pieces.push_back({{{spec, begin, std::min(begin + max_rows, spec.shape.front())}}});
  }
  return pieces;
}

}  // namespace blockptq

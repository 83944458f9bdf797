#include "checkpoint/safetensors.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "base/error.h"
#include "base/json.h"
#include "base/size.h"
#include "checkpoint/index.h"

namespace blockptq {
namespace {

constexpr int64_t kLengthBytes = 8;
constexpr int64_t kMaxHeaderBytes = 100'000'000;  // the limit of the safetensors library

/// The JSON of the header, after the checks on its length.
std::string_view header_text(std::span<const uint8_t> head, int64_t file_size,
                             std::string_view origin) {
  check(file_size >= kLengthBytes,
        "{}: not a safetensors file: {} bytes, expected at least 8 for the header length", origin,
        file_size);
  BPTQ_ASSERT(static_cast<int64_t>(head.size()) >= kLengthBytes);
  uint64_t length = 0;
  for (size_t i = 0; i < size_t{kLengthBytes}; ++i) {
    length |= uint64_t{head[i]} << (8 * i);
  }
  check(length >= 2, "{}: not a safetensors file: header length {}, expected at least 2", origin,
        length);
  check(length <= uint64_t{kMaxHeaderBytes},
        "{}: not a safetensors file: header length {}, expected at most {}", origin, length,
        kMaxHeaderBytes);
  check(
      length <= static_cast<uint64_t>(file_size - kLengthBytes),
      "{}: truncated: header of {} bytes, but only {} follow its length: a partly downloaded file?",
      origin, length, file_size - kLengthBytes);
  BPTQ_ASSERT(head.size() - kLengthBytes >= length);
  const std::string_view text(reinterpret_cast<const char*>(head.data()) + kLengthBytes, length);
  check(text.front() == '{', "{}: header: expected a JSON object that starts with '{{', found {:?}",
        origin, text.substr(0, 1));
  return text;
}

bool is_control(char c) {
  return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
}

/// An array of integers >= 0.
std::vector<int64_t> parse_sizes(const JsonView& view) {
  view.expect_array();
  std::vector<int64_t> sizes;
  sizes.reserve(view.size());
  for (const Json& value : view.raw()) {
    // Views are for the message: a header has some 10,000 numbers.
    const auto* number = value.get_ptr<const Json::number_unsigned_t*>();
    sizes.push_back(number != nullptr && *number <= uint64_t{std::numeric_limits<int64_t>::max()}
                        ? static_cast<int64_t>(*number)
                        : view.at(sizes.size()).integer(0));
  }
  return sizes;
}

int64_t shape_nbytes(const Shape& shape, Dtype dtype, const std::string& where) {
  // Zeros count as one here, so that every product of some of the dimensions fits.
  int64_t nbytes = dtype_size(dtype);
  for (const int64_t dimension : shape) {
    nbytes = checked_mul(nbytes, std::max<int64_t>(dimension, 1), where);
  }
  return std::find(shape.begin(), shape.end(), 0) == shape.end() ? nbytes : 0;
}

/// One entry of the header; its offset is still relative to the end of the header.
TensorInfo parse_tensor(const std::string& name, const JsonView& entry, std::string_view origin,
                        int64_t data_size) {
  check(std::none_of(name.begin(), name.end(), is_control),
        "{}: tensor {:?}: control characters in the name", origin, name);
  const std::string where = fmt::format("{}: tensor {}", origin, name);
  entry.expect_object();
  for (const auto& [key, value] : entry.raw().items()) {
    check(key == "dtype" || key == "shape" || key == "data_offsets",
          "{}: unknown key {:?}, expected dtype, shape and data_offsets", where, key);
  }
  TensorInfo tensor;
  tensor.name = name;
  const std::string& dtype = entry.at("dtype").string();
  const auto known = parse_dtype(dtype);
  check(known.has_value(), "{}: unknown dtype {:?}", where, dtype);
  tensor.dtype = *known;
  tensor.shape = parse_sizes(entry.at("shape"));
  const std::vector<int64_t> offsets = parse_sizes(entry.at("data_offsets"));
  check(offsets.size() == 2, "{}: data_offsets: expected 2 numbers, found {}", where,
        offsets.size());
  const int64_t begin = offsets[0];
  const int64_t end = offsets[1];
  check(begin <= end, "{}: data_offsets [{}, {}]: the end lies before the begin", where, begin,
        end);
  check(end <= data_size,
        "{}: data_offsets [{}, {}]: past the end of the file ({} bytes of data): a partly "
        "downloaded file?",
        where, begin, end, data_size);
  tensor.offset = begin;
  tensor.nbytes = shape_nbytes(tensor.shape, tensor.dtype, where);
  if (tensor.nbytes != end - begin) {
    fail("{}: {} {} has {} bytes, data_offsets [{}, {}] span {}", where, dtype,
         shape_text(tensor.shape), tensor.nbytes, begin, end, end - begin);
  }
  return tensor;
}

std::map<std::string, std::string> parse_metadata(const JsonView& view) {
  view.expect_object();
  std::map<std::string, std::string> metadata;
  for (const auto& [key, value] : view.raw().items()) {
    metadata.emplace(key, view.at(key).string());
  }
  return metadata;
}

/// Tensors sorted by offset must fill [0, data_size) one after the other.
void check_coverage(const std::vector<TensorInfo>& tensors, int64_t data_size,
                    std::string_view origin) {
  int64_t covered = 0;
  for (const TensorInfo& tensor : tensors) {
    check(tensor.offset >= covered,
          "{}: tensor {}: begins at byte {} of the data and overlaps the tensor before it, which "
          "ends at {}",
          origin, tensor.name, tensor.offset, covered);
    check(tensor.offset == covered,
          "{}: tensor {}: begins at byte {} of the data, which leaves a hole after byte {}", origin,
          tensor.name, tensor.offset, covered);
    covered += tensor.nbytes;
  }
  check(covered == data_size, "{}: {} trailing bytes after the last tensor", origin,
        data_size - covered);
}

std::shared_ptr<const std::vector<uint64_t>> copy_words(const uint8_t* data, int64_t size) {
  const auto words = static_cast<size_t>(ceil_div(size, int64_t{sizeof(uint64_t)}));
  auto copy = std::make_shared<std::vector<uint64_t>>(words);
  std::memcpy(copy->data(), data, static_cast<size_t>(size));
  return copy;
}

SafetensorsHeader open_header(const MappedFile& file) {
  const std::string origin = file.path().string();
  const auto bytes = file.bytes();
  file.populate(0, std::min<size_t>(bytes.size(), 4096));
  const std::string_view start(reinterpret_cast<const char*>(bytes.data()),
                               std::min<size_t>(bytes.size(), 256));
  refuse_lfs_pointer(start, origin);
  const auto file_size = static_cast<int64_t>(bytes.size());
  const size_t header_bytes = file_size < kLengthBytes
                                  ? bytes.size()
                                  : kLengthBytes + header_text(bytes, file_size, origin).size();
  file.populate(0, header_bytes);
  SafetensorsHeader header = parse_safetensors_header(bytes, file_size, origin);
  file.release(0, header_bytes);
  return header;
}

}  // namespace

std::string shape_text(const Shape& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

SafetensorsHeader parse_safetensors_header(std::span<const uint8_t> file_head, int64_t file_size,
                                           std::string_view origin) {
  const std::string_view text = header_text(file_head, file_size, origin);
  const Json json = parse_json(text, fmt::format("{}: header", origin));
  const JsonView view(json, std::string(origin));
  SafetensorsHeader header;
  header.nbytes = kLengthBytes + static_cast<int64_t>(text.size());
  const int64_t data_size = file_size - header.nbytes;
  header.tensors.reserve(json.size());
  for (const auto& [name, entry] : json.items()) {
    if (name == "__metadata__") {
      header.metadata = parse_metadata(view.at(name));
    } else {
      header.tensors.push_back(parse_tensor(name, view.at(name), origin, data_size));
    }
  }
  // Empty tensors share their offset with the tensor after them and come first.
  std::sort(header.tensors.begin(), header.tensors.end(),
            [](const TensorInfo& a, const TensorInfo& b) {
              return std::pair(a.offset, a.nbytes) < std::pair(b.offset, b.nbytes);
            });
  check_coverage(header.tensors, data_size, origin);
  for (TensorInfo& tensor : header.tensors) {
    tensor.offset += header.nbytes;
  }
  return header;
}

TensorBytes::TensorBytes(const MappedFile& file, int64_t offset, int64_t size, int64_t alignment)
    : file_(&file), offset_(offset), size_(size), data_(file.bytes().data() + offset) {
  BPTQ_ASSERT(offset >= 0 && size >= 0 &&
              offset + size <= static_cast<int64_t>(file.bytes().size()));
  file.populate(static_cast<size_t>(offset_), static_cast<size_t>(size_));
  align(alignment);
}

TensorBytes::TensorBytes(const DirectReader& file, int64_t offset, int64_t size, int64_t alignment)
    : offset_(offset), size_(size) {
  const auto bytes = file.read(static_cast<size_t>(offset), static_cast<size_t>(size));
  data_ = bytes.get();
  owner_ = bytes;
  align(alignment);
}

void TensorBytes::align(int64_t alignment) {
  if (reinterpret_cast<uintptr_t>(data_) % static_cast<uintptr_t>(alignment) != 0) {
    const auto copy = copy_words(data_, size_);
    data_ = reinterpret_cast<const uint8_t*>(copy->data());
    owner_ = copy;
  }
}

TensorBytes::TensorBytes(std::shared_ptr<const std::vector<uint64_t>> kept, int64_t offset,
                         int64_t size)
    : offset_(offset),
      size_(size),
      data_(reinterpret_cast<const uint8_t*>(kept->data()) + offset),
      owner_(std::move(kept)) {}

TensorBytes::~TensorBytes() {
  if (file_ != nullptr) {
    file_->release(static_cast<size_t>(offset_), static_cast<size_t>(size_));
  }
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path, Reading reading)
    : file_(path), header_(open_header(file_)) {
  if (reading == Reading::direct) {
    direct_.emplace(path);
  }
  by_name_.reserve(header_.tensors.size());
  for (const TensorInfo& tensor : header_.tensors) {
    by_name_.emplace(tensor.name, &tensor);
  }
}

const TensorInfo* SafetensorsFile::find(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : found->second;
}

const TensorInfo& SafetensorsFile::at(std::string_view name) const {
  const TensorInfo* tensor = find(name);
  check(tensor != nullptr, "{}: tensor {} is missing", path().string(), name);
  return *tensor;
}

TensorBytes SafetensorsFile::read(const TensorInfo& tensor, int64_t begin, int64_t end) const {
  BPTQ_ASSERT(begin >= 0 && begin <= end && end <= tensor.nbytes);
  if (const Kept bytes = kept(tensor)) {
    return {bytes, begin, end - begin};
  }
  bytes_read_.fetch_add(end - begin, std::memory_order_relaxed);
  if (direct_) {
    return {*direct_, tensor.offset + begin, end - begin, dtype_size(tensor.dtype)};
  }
  return {file_, tensor.offset + begin, end - begin, dtype_size(tensor.dtype)};
}

SafetensorsFile::Kept SafetensorsFile::kept(const TensorInfo& tensor) const {
  const std::lock_guard lock(mutex_);
  const auto found = kept_.find(&tensor);
  if (found == kept_.end()) {
    return nullptr;
  }
  if (found->second == nullptr) {
    const TensorBytes bytes(file_, tensor.offset, tensor.nbytes, 1);
    bytes_read_.fetch_add(tensor.nbytes, std::memory_order_relaxed);
    found->second = copy_words(bytes.data(), bytes.size());
  }
  return found->second;
}

void SafetensorsFile::keep(const TensorInfo& tensor) const {
  const std::lock_guard lock(mutex_);
  kept_.emplace(&tensor, nullptr);
}

void SafetensorsFile::drop(const TensorInfo& tensor) const {
  const std::lock_guard lock(mutex_);
  kept_.erase(&tensor);
}

void SafetensorsFile::prefetch(const TensorInfo& tensor) const {
  BPTQ_ASSERT(!direct_);
  file_.prefetch(static_cast<size_t>(tensor.offset), static_cast<size_t>(tensor.nbytes));
}

void SafetensorsFile::release(const TensorInfo& tensor) const {
  file_.release(static_cast<size_t>(tensor.offset), static_cast<size_t>(tensor.nbytes));
}

void SafetensorsFile::add_to(Sha256& hash) const {
  constexpr size_t kSamples = 32;
  constexpr int64_t kSampleBytes = 1024;
  hash.add_field(path().filename().string());
  hash.add_field(std::to_string(file_size()));
  const TensorBytes header = header_bytes();
  hash.add_field(header.data(), static_cast<size_t>(header.size()));
  const std::vector<TensorInfo>& tensors = header_.tensors;
  const size_t samples = std::min(kSamples, tensors.size());
  for (size_t i = 0; i < samples; ++i) {
    const TensorInfo& tensor = tensors[i * tensors.size() / samples];
    const int64_t size = std::min(tensor.nbytes, kSampleBytes);
    const TensorBytes bytes = peek(tensor.offset + (tensor.nbytes - size) / 2, size);
    hash.add_field(bytes.data(), static_cast<size_t>(bytes.size()));
  }
}

std::string RawTensor::where() const {
  return fmt::format("{}: tensor {}", file->path().string(), info->name);
}

}  // namespace blockptq

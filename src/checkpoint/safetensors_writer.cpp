#include "checkpoint/safetensors_writer.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <set>
#include <string_view>

#include "base/error.h"
#include "base/json.h"
#include "base/size.h"

namespace blockptq {
namespace {

constexpr size_t kAlignment = 8;

/// `value` as JSON text; Error when a string is no UTF-8.
std::string json_text(const Json& value, std::string_view origin) {
  try {
    return value.dump();
  } catch (const Json::type_error& error) {
    fail("{}: names and metadata: {}", origin, error.what());
  }
}

/// The JSON of the header in the order of `tensors`, padded.
std::string header_text(std::span<const TensorSpec> tensors, const Metadata& metadata,
                        std::string_view origin) {
  std::set<std::string_view> names;
  std::string text = "{";
  if (!metadata.empty()) {
    text += R"("__metadata__":)" + json_text(metadata, origin);
  }
  int64_t offset = 0;
  for (const TensorSpec& tensor : tensors) {
    check(tensor.name != "__metadata__" && names.insert(tensor.name).second,
          "{}: tensor {}: a name that is taken", origin, tensor.name);
    const int64_t end = checked_add(offset, tensor_nbytes(tensor), origin);
    text += fmt::format(R"({}{}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})",
                        text.size() > 1 ? "," : "", json_text(tensor.name, origin),
                        dtype_name(tensor.dtype), fmt::join(tensor.shape, ","), offset, end);
    offset = end;
  }
  text += "}";
  text.append((kAlignment - text.size() % kAlignment) % kAlignment, ' ');
  return text;
}

std::array<uint8_t, kAlignment> little_endian(uint64_t value) {
  std::array<uint8_t, kAlignment> bytes{};
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<uint8_t>(value >> (8 * i));
  }
  return bytes;
}

}  // namespace

int64_t tensor_nbytes(const TensorSpec& spec) {
  int64_t nbytes = dtype_size(spec.dtype);
  for (const int64_t dimension : spec.shape) {
    nbytes = checked_mul(nbytes, dimension, spec.name);
  }
  return nbytes;
}

void write_safetensors(const std::filesystem::path& path, std::span<const TensorSpec> tensors,
                       const Metadata& metadata, const TensorSource& source,
                       const Append& observe) {
  const std::string header = header_text(tensors, metadata, path.string());
  write_atomically(path, [&](const Append& write) {
    const auto append = [&](const void* data, size_t size) {
      write(data, size);
      if (observe) {
        observe(data, size);
      }
    };
    const auto length = little_endian(header.size());
    append(length.data(), length.size());
    append(header.data(), header.size());
    for (size_t i = 0; i < tensors.size(); ++i) {
      size_t appended = 0;
      source(i, [&](const void* data, size_t size) {
        append(data, size);
        appended += size;
      });
      BPTQ_ASSERT(static_cast<int64_t>(appended) == tensor_nbytes(tensors[i]));
    }
  });
}

int64_t safetensors_file_size(std::span<const TensorSpec> tensors, const Metadata& metadata) {
  const auto header = static_cast<int64_t>(header_text(tensors, metadata, "safetensors").size());
  int64_t size = static_cast<int64_t>(kAlignment) + header;
  for (const TensorSpec& tensor : tensors) {
    size = checked_add(size, tensor_nbytes(tensor), tensor.name);
  }
  return size;
}

void write_safetensors(const std::filesystem::path& path, std::span<const TensorToWrite> tensors,
                       const Metadata& metadata) {
  std::vector<TensorSpec> specs;
  specs.reserve(tensors.size());
  for (const TensorToWrite& tensor : tensors) {
    specs.push_back(tensor.spec);
  }
  write_safetensors(path, specs, metadata, [&](size_t index, const Append& append) {
    append(tensors[index].data, static_cast<size_t>(tensor_nbytes(specs[index])));
  });
}

}  // namespace blockptq

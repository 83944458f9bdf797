// What the tests of this folder share: a temporary folder and files built by hand.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/test_refusal.h"
#include "checkpoint/safetensors_writer.h"

namespace blockptq::testing_support {

/// A folder that is removed with its contents.
class TempDir {
 public:
  TempDir() {
    std::string name = (std::filesystem::temp_directory_path() / "blockptq-test-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) {
      throw Error("cannot create " + name);
    }
    path_ = name;
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(std::string_view name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

inline void write_text(const std::filesystem::path& path, std::string_view text) {
  std::ofstream(path, std::ios::binary)
      .write(text.data(), static_cast<std::streamsize>(text.size()));
}

/// The little-endian length field of a header.
inline std::string length_field(uint64_t length) {
  std::string bytes;
  for (int shift = 0; shift < 64; shift += 8) {
    bytes.push_back(static_cast<char>(length >> shift & 0xff));
  }
  return bytes;
}

/// A safetensors file of that header and `data_size` zero bytes.
inline std::string raw_file(std::string_view header, size_t data_size = 0) {
  return length_field(header.size()) + std::string(header) + std::string(data_size, '\0');
}

/// A tensor that owns its bytes.
struct TestTensor {
  TensorSpec spec;
  std::string bytes;
};

template <typename T>
TestTensor make_tensor(std::string name, Dtype dtype, Shape shape, const std::vector<T>& values) {
  std::string bytes(values.size() * sizeof(T), '\0');
  if (!values.empty()) {
    std::memcpy(bytes.data(), values.data(), bytes.size());
  }
  return {{std::move(name), dtype, std::move(shape)}, std::move(bytes)};
}

inline void write_shard(const std::filesystem::path& path, const std::vector<TestTensor>& tensors) {
  std::vector<TensorToWrite> to_write;
  to_write.reserve(tensors.size());
  for (const TestTensor& tensor : tensors) {
    to_write.push_back({tensor.spec, tensor.bytes.data()});
  }
  write_safetensors(path, to_write);
}

}  // namespace blockptq::testing_support

#include "base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <string_view>
#include <utility>

#include "base/descriptor.h"
#include "base/direct_io.h"
#include "base/error.h"

namespace blockptq {
namespace {

#ifndef MADV_POPULATE_READ
constexpr int MADV_POPULATE_READ = 22;  // Linux 5.14; older kernels answer EINVAL
#endif

constexpr std::string_view kUnfinished = ".tmp-";  // and the process id, after the final name

/// The whole pages that touch [offset, offset + size) of a map of `limit` bytes.
std::pair<size_t, size_t> page_range(size_t offset, size_t size, size_t limit) {
  static const auto kPage = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const size_t begin = offset / kPage * kPage;
  const size_t end = std::min(limit, offset + size);
  return {begin, end > begin ? end - begin : 0};
}

void sync_folder(const std::filesystem::path& folder) {
  const Descriptor fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  check(fd.get() >= 0 && ::fsync(fd.get()) == 0, "{}: cannot sync: {}", folder.string(),
        last_error());
}

std::filesystem::path folder_of(const std::filesystem::path& path) {
  return path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
}

}  // namespace

MappedFile::MappedFile(const std::filesystem::path& path) : path_(path) {
  const Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  check(fd.get() >= 0, "{}: cannot open: {}", path.string(), last_error());
  struct stat status {};
  check(::fstat(fd.get(), &status) == 0 && S_ISREG(status.st_mode), "{}: not a regular file",
        path.string());
  size_ = static_cast<size_t>(status.st_size);
  if (size_ == 0) {
    return;
  }
  void* mapped = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, fd.get(), 0);
  check(mapped != MAP_FAILED, "{}: cannot map: {}", path.string(), last_error());
  data_ = static_cast<uint8_t*>(mapped);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) {
    ::munmap(data_, size_);
  }
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

void MappedFile::prefetch(size_t offset, size_t size) const {
  const auto [begin, length] = page_range(offset, size, size_);
  if (length > 0) {
    ::madvise(data_ + begin, length, MADV_WILLNEED);
  }
}

void MappedFile::populate(size_t offset, size_t size) const {
  const auto [begin, length] = page_range(offset, size, size_);
  if (length == 0 || ::madvise(data_ + begin, length, MADV_POPULATE_READ) == 0) {
    return;
  }
  // EINVAL: a kernel without populate. The pages then come one fault at a time.
  check(errno == EINVAL, "{}: cannot read {} bytes at offset {}: {}", path_.string(), length, begin,
        last_error());
}

void MappedFile::release(size_t offset, size_t size) const {
  // A fault maps its neighbours too: aligned windows (fault_around_bytes, 64 KiB), and since Linux
  // 6.18 the whole folio of the page cache, up to 2 MiB. Give all of it back, or every border
  // between two pieces leaves some pages behind.
  constexpr size_t kWindow = size_t{2} << 20;
  const size_t first = offset / kWindow * kWindow;
  const size_t last = (offset + size + kWindow - 1) / kWindow * kWindow;
  const auto [begin, length] = page_range(first, last - first, size_);
  if (length > 0) {
    ::madvise(data_ + begin, length, MADV_DONTNEED);
  }
}

std::string read_file(const std::filesystem::path& path, int64_t max_bytes) {
  const MappedFile file(path);
  const auto bytes = file.bytes();
  check(static_cast<int64_t>(bytes.size()) <= max_bytes, "{}: {} bytes, expected at most {}",
        path.string(), bytes.size(), max_bytes);
  file.populate(0, bytes.size());
  return {bytes.begin(), bytes.end()};
}

void write_atomically(const std::filesystem::path& path,
                      const std::function<void(const Append&)>& write) {
  std::filesystem::path temporary = path;
  temporary += fmt::format("{}{}", kUnfinished, ::getpid());
  try {
    const Descriptor fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    check(fd.get() >= 0, "{}: cannot create: {}", path.string(), last_error());
    DirectWriter writer(fd.get(), path);
    write([&](const void* data, size_t size) { writer.append(data, size); });
    writer.finish();
    check(::rename(temporary.c_str(), path.c_str()) == 0, "{}: cannot rename into place: {}",
          path.string(), last_error());
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
  sync_folder(folder_of(path));
}

void remove_unfinished(const std::filesystem::path& folder) {
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension().string().starts_with(kUnfinished)) {
      std::filesystem::remove(entry.path());
    }
  }
}

void write_file_atomically(const std::filesystem::path& path, std::string_view content) {
  write_atomically(path, [&](const Append& append) { append(content.data(), content.size()); });
}

void make_folder(const std::filesystem::path& path) {
  std::error_code status;
  std::filesystem::create_directories(path, status);
  check(!status && std::filesystem::is_directory(path), "{}: cannot create the folder: {}",
        path.string(), status ? status.message() : "a file of that name is in the way");
}

int64_t free_bytes(std::filesystem::path folder) {
  folder = std::filesystem::absolute(folder).lexically_normal();
  while (!std::filesystem::exists(folder) && folder.has_relative_path()) {
    folder = folder.parent_path();
  }
  std::error_code status;
  const auto space = std::filesystem::space(folder, status);
  check(!status, "{}: cannot tell the free space: {}", folder.string(), status.message());
  return static_cast<int64_t>(space.available);
}

void refuse_lfs_pointer(std::string_view content, std::string_view origin) {
  check(!content.starts_with("version https://git-lfs.github.com/spec/"),
        "{}: a git-LFS pointer instead of the file itself, as of a partly downloaded checkpoint; "
        "fetch the file with 'git lfs pull'",
        origin);
}

}  // namespace blockptq

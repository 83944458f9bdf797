#include "run/journal.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/file.h"

namespace blockptq {

Journal::Journal(std::filesystem::path path) : path_(std::move(path)) {
  if (!std::filesystem::exists(path_)) {
    return;
  }
  const std::string text = read_file(path_);
  const size_t whole = text.rfind('\n') + 1;  // npos + 1 is 0
  for (size_t begin = 0; begin < whole;) {
    const size_t end = text.find('\n', begin);
    entries_.push_back(parse_json(text.substr(begin, end - begin), path_.string()));
    begin = end + 1;
  }
  std::filesystem::resize_file(path_, whole);
}

void Journal::append(const Json& entry) {
  const std::string line = entry.dump() + "\n";
  const int file = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  check(file >= 0, "{}: cannot be written", path_.string());
  const ssize_t written = ::write(file, line.data(), line.size());
  const bool ok = written == static_cast<ssize_t>(line.size()) && ::fsync(file) == 0;
  ::close(file);
  check(ok, "{}: cannot be written: no space?", path_.string());
  entries_.push_back(entry);
}

const Json* Journal::find(int64_t block, const std::string& unit) const {
  const auto entry = std::find_if(entries_.begin(), entries_.end(), [&](const Json& json) {
    return json.value("block", int64_t{-1}) == block && json.value("unit", std::string()) == unit;
  });
  return entry == entries_.end() ? nullptr : &*entry;
}

}  // namespace blockptq

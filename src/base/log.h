// Where the library's messages go: a sink that the program installs. Without one, nothing is
// printed.
#pragma once

#include <fmt/format.h>

#include <functional>
#include <string>
#include <utility>

namespace blockptq {

enum class LogLevel { debug, info, warning, error };

using LogSink = std::function<void(LogLevel, const std::string&)>;

/// Installs the sink of the process; call before threads start.
void set_log_sink(LogSink sink);
void log_message(LogLevel level, const std::string& message);

template <typename... Args>
void log(LogLevel level, fmt::format_string<Args...> format, Args&&... args) {
  log_message(level, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace blockptq

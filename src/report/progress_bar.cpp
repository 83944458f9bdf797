#include "report/progress_bar.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

#include "base/size.h"

namespace blockptq {
namespace {

constexpr std::chrono::milliseconds kRedrawInterval{200};
constexpr int kBarWidth = 24;

std::string render(const ProgressState& state, double seconds) {
  const int filled = std::clamp(static_cast<int>(state.done * kBarWidth), 0, kBarWidth);
  const double left = state.done > 0 ? seconds * (1 - state.done) / state.done : 0;
  const std::string what =
      state.tokens == 0
          ? state.detail
          : fmt::format("block {} ({})  {:.0f} tokens/s", state.block, state.detail,
                        static_cast<double>(state.tokens) * state.done / std::max(seconds, 1e-9));
  return fmt::format("[{:#<{}}{:.<{}}] {:3.0f} %  {}  {} left", "", filled, "", kBarWidth - filled,
                     100 * state.done, what, format_seconds(left));
}

}  // namespace

ProgressBar::ProgressBar(std::FILE* stream)
    : stream_(stream), enabled_(::isatty(::fileno(stream)) == 1) {}

ProgressBar::~ProgressBar() {
  if (enabled_) {
    std::fputs("\r\033[K", stream_);
    std::fflush(stream_);
  }
}

void ProgressBar::update(const ProgressState& state) {
  const auto now = Clock::now();
  if (!enabled_ || now - last_draw_ < kRedrawInterval) {
    return;
  }
  last_draw_ = now;
  const double seconds = std::chrono::duration<double>(now - start_).count();
  fmt::print(stream_, "\r\033[K{}", render(state, seconds));
  std::fflush(stream_);
}

}  // namespace blockptq

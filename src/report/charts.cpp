#include "report/charts.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "report/html.h"

namespace blockptq {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

double number_at(const Json& row, const char* key) {
  const auto value = row.find(key);
  return value != row.end() && value->is_number() ? value->get<double>() : kNaN;
}

std::string tick_text(double value) {
  return show(value, Show::number);
}

// --- the curve ---

constexpr double kWidth = 880;
constexpr double kHeight = 240;
constexpr double kLeft = 64;
constexpr double kRight = 14;
constexpr double kTop = 12;
constexpr double kBottom = 30;
constexpr double kSmallest = 1e-30;  ///< error that has a place on the axis

struct Point {
  double x;
  double y;
};

/// Logarithmic y axis over positive values, from and to 1, 2 or 5 times a power of ten.
class LogAxis {
 public:
  /// `values`: at least one, all of them at least kSmallest.
  explicit LogAxis(const std::vector<double>& values) {
    const auto [low, high] = std::minmax_element(values.begin(), values.end());
    double power = std::pow(10, std::floor(std::log10(*low)));
    for (size_t i = 0; ticks_.size() < 2 || ticks_.back() < *high; ++i) {
      const double tick = power * kSteps[i % 3];
      if (tick <= *low) {
        ticks_.clear();
      }
      ticks_.push_back(tick);
      power *= i % 3 == 2 ? 10 : 1;
    }
  }

  double y(double value) const {
    const double share =
        std::log(value / ticks_.front()) / std::log(ticks_.back() / ticks_.front());
    return kTop + (1 - share) * (kHeight - kTop - kBottom);
  }
  const std::vector<double>& ticks() const { return ticks_; }

 private:
  static constexpr double kSteps[] = {1, 2, 5};
  std::vector<double> ticks_;
};

double x_of(size_t index, size_t count) {
  const double share =
      count < 2 ? 0.5 : static_cast<double>(index) / static_cast<double>(count - 1);
  return kLeft + 10 + share * (kWidth - kLeft - kRight - 20);
}

std::string series(const Json& blocks, const char* key, const char* style, const LogAxis& axis) {
  std::string path;
  std::string dots;
  bool pen = false;
  for (size_t i = 0; i < blocks.size(); ++i) {
    const double value = number_at(blocks[i], key);
    if (!(value >= kSmallest)) {
      pen = false;
      continue;
    }
    const Point at{x_of(i, blocks.size()), axis.y(value)};
    path += fmt::format("{}{:.1f} {:.1f}", pen ? "L" : "M", at.x, at.y);
    dots +=
        fmt::format(R"(<circle cx="{:.1f}" cy="{:.1f}" r="3"><title>block {}: {}</title></circle>)",
                    at.x, at.y, blocks[i]["block"].dump(), tick_text(value));
    pen = true;
  }
  return fmt::format(R"(<g class="{}"><path d="{}"/>{}</g>)", style, path, dots);
}

// --- heat maps ---

constexpr int kColours = 8;
constexpr double kAxis = 34;  ///< room for labels, left and on top

/// Where the experts are.
struct Grid {
  std::vector<int64_t> rows;  ///< blocks that have experts
  int64_t columns = 0;
  double cell_width = 0;
  double cell_height = 0;
  double width() const { return kAxis + static_cast<double>(columns) * cell_width + 1; }
  double height() const { return kAxis / 2 + static_cast<double>(rows.size()) * cell_height + 1; }
};

/// A routed expert, by its place in the columns of "units".
struct Cell {
  int64_t block;
  int64_t expert;
  size_t index;
};

std::vector<Cell> cells_of(const Json& units) {
  std::vector<Cell> cells;
  for (size_t i = 0; i < units["expert"].size(); ++i) {
    if (const Json& expert = units["expert"][i]; !expert.is_null()) {
      cells.push_back({units["block"][i].get<int64_t>(), expert.get<int64_t>(), i});
    }
  }
  return cells;
}

Grid grid_of(const std::vector<Cell>& cells) {
  Grid grid;
  for (const Cell& cell : cells) {
    if (grid.rows.empty() || grid.rows.back() != cell.block) {
      grid.rows.push_back(cell.block);
    }
    grid.columns = std::max(grid.columns, cell.expert + 1);
  }
  grid.cell_width = std::clamp(840.0 / static_cast<double>(grid.columns), 3.3, 48.0);
  grid.cell_height = std::clamp(360.0 / static_cast<double>(grid.rows.size()), 6.0, 20.0);
  return grid;
}

/// What a map shows: a value per cell, NaN for none, and which of them are marked.
struct Layer {
  const char* id;
  const char* title;
  const char* mark_text;
  std::vector<double> values;
  bool (*marked)(double value);
};

/// The attribute that makes a cell the unit of both axes.
std::string in_cells(const Grid& grid) {
  return fmt::format(R"x(transform="translate({} {}) scale({:.3f} {:.3f})")x", kAxis, kAxis / 2,
                     grid.cell_width, grid.cell_height);
}

/// Paths of the cells of one colour each; `colour`: of a value, kColours for marked ones.
std::string cell_paths(const Grid& grid, const std::vector<Cell>& cells,
                       const std::vector<int>& colours) {
  std::vector<std::string> paths(kColours + 1);
  int64_t row = -1;
  for (size_t i = 0; i < cells.size();) {
    row += i == 0 || cells[i].block != cells[i - 1].block ? 1 : 0;
    size_t end = i + 1;  // of a run of neighbours of the same colour
    while (end < cells.size() && cells[end].block == cells[i].block &&
           cells[end].expert == cells[end - 1].expert + 1 && colours[end] == colours[i]) {
      ++end;
    }
    if (colours[i] >= 0) {
      paths[static_cast<size_t>(colours[i])] +=
          fmt::format("M{} {}.5h{}", cells[i].expert, row, end - i);
    }
    i = end;
  }
  std::string result;
  for (size_t colour = 0; colour < paths.size(); ++colour) {
    if (!paths[colour].empty()) {
      result += fmt::format(R"(<path class="{}{}" d="{}"/>)", colour == kColours ? "mark" : "c",
                            colour, paths[colour]);
    }
  }
  return fmt::format("<g {}>{}</g>", in_cells(grid), result);
}

std::string axis_labels(const Grid& grid) {
  std::string labels;
  const size_t row_step = grid.rows.size() / 24 + 1;
  for (size_t row = 0; row < grid.rows.size(); row += row_step) {
    labels += fmt::format(R"(<text class="end" x="{}" y="{:.1f}">{}</text>)", kAxis - 6,
                          kAxis / 2 + (static_cast<double>(row) + 0.5) * grid.cell_height + 4,
                          grid.rows[row]);
  }
  const int64_t column_step = grid.columns <= 32 ? 1 : (grid.columns + 15) / 16;
  for (int64_t column = 0; column < grid.columns; column += column_step) {
    labels += fmt::format(R"(<text class="middle" x="{:.1f}" y="11">{}</text>)",
                          kAxis + (static_cast<double>(column) + 0.5) * grid.cell_width, column);
  }
  return labels;
}

/// Lines between cells that are large enough for them.
std::string grid_lines(const Grid& grid) {
  if (grid.cell_width < 10) {
    return "";
  }
  std::string path;
  for (int64_t column = 1; column < grid.columns; ++column) {
    path += fmt::format("M{} 0v{}", column, grid.rows.size());
  }
  for (size_t row = 1; row < grid.rows.size(); ++row) {
    path += fmt::format("M0 {}h{}", row, grid.columns);
  }
  return fmt::format(R"(<path class="grid" {} d="{}"/>)", in_cells(grid), path);
}

std::string legend(const Layer& layer, double low, double high) {
  std::string swatches;
  for (int colour = 0; colour < kColours; ++colour) {
    swatches += fmt::format(R"(<i class="c{}"></i>)", colour);
  }
  return fmt::format(R"(<span class="legend">{} {} {} <i class="mark{}"></i> {}</span>)",
                     std::isfinite(low) ? tick_text(low) : "–", swatches,
                     std::isfinite(high) ? tick_text(high) : "–", kColours,
                     escape_html(layer.mark_text));
}

std::string heat_map(const Grid& grid, const std::vector<Cell>& cells, const Layer& layer) {
  double low = std::numeric_limits<double>::infinity();
  double high = 0;
  for (const double value : layer.values) {
    if (value > 0 && !layer.marked(value)) {
      low = std::min(low, value);
      high = std::max(high, value);
    }
  }
  std::vector<int> colours;
  colours.reserve(layer.values.size());
  for (const double value : layer.values) {
    const double share = high > low ? std::log(value / low) / std::log(high / low) : 0.5;
    colours.push_back(std::isnan(value)     ? -1
                      : layer.marked(value) ? kColours
                      : value > 0 ? std::clamp(static_cast<int>(share * kColours), 0, kColours - 1)
                                  : 0);
  }
  return fmt::format(
      R"(<figure><figcaption><b>{}</b>{}</figcaption><div class="scroll">)"
      R"(<svg class="heat" id="{}" style="min-width:{:.0f}px" viewBox="0 0 {:.1f} {:.1f}" )"
      R"(role="img" aria-label="{}" )"
      R"(data-grid="{} {} {:.3f} {:.3f}" data-rows="{}">{}{}{}</svg></div>)"
      R"(<output></output></figure>)",
      layer.title, legend(layer, low, high > 0 ? high : kNaN), layer.id,
      std::min(grid.width(), 620.0), grid.width(), grid.height(), layer.title, kAxis, kAxis / 2,
      grid.cell_width, grid.cell_height, fmt::join(grid.rows, " "), axis_labels(grid),
      cell_paths(grid, cells, colours), grid_lines(grid));
}

}  // namespace

std::string error_curve(const Json& data) {
  const Json& blocks = data["blocks"];
  std::vector<double> values;
  for (const Json& block : blocks) {
    for (const char* key : {"relative_error", "held_out_relative_error"}) {
      if (const double value = number_at(block, key); value >= kSmallest) {
        values.push_back(value);
      }
    }
  }
  if (values.empty()) {
    return R"(<p class="none">No block is finished.</p>)";
  }
  const LogAxis axis(values);
  std::string lines;
  const std::vector<double>& ticks = axis.ticks();
  for (size_t i = 0; i < ticks.size(); i += ticks.size() / 9 + 1) {
    const double tick = ticks[i];
    lines += fmt::format(
        R"(<path class="rule" d="M{} {:.1f}H{}"/><text class="end" x="{}" y="{:.1f}">{}</text>)",
        kLeft, axis.y(tick), kWidth - kRight, kLeft - 8, axis.y(tick) + 4, tick_text(tick));
  }
  const size_t step = blocks.size() / 21 + 1;
  for (size_t i = 0; i < blocks.size(); i += step) {
    lines += fmt::format(R"(<text class="middle" x="{:.1f}" y="{}">{}</text>)",
                         x_of(i, blocks.size()), kHeight - 10, blocks[i]["block"].dump());
  }
  return fmt::format(
      R"(<div class="scroll"><svg class="curve" id="error_curve" viewBox="0 0 {} {}" role="img" )"
      R"(aria-label="Relative error by block">{}{}{}</svg></div>)",
      kWidth, kHeight, lines, series(blocks, "relative_error", "calibration", axis),
      series(blocks, "held_out_relative_error", "held_out", axis));
}

std::string heat_maps(const Json& data) {
  const Json& units = data["units"];
  const std::vector<Cell> cells = cells_of(units);
  if (cells.empty()) {
    return "";
  }
  Layer tokens{"heat_tokens", "Tokens seen", "none", {}, [](double value) { return value == 0; }};
  Layer error{"heat_error", "Error after", "not a number", {}, [](double value) {
                return std::isinf(value);
              }};
  Layer ratio{"heat_ratio", "Error after / before", "not better", {}, [](double value) {
                return value >= 1;
              }};
  const auto loss = [&](const char* key, size_t index) {
    const Json& value = units[key][index];
    return value.is_number() ? value.get<double>() : std::numeric_limits<double>::infinity();
  };
  for (const Cell& cell : cells) {
    const auto seen = units["tokens"][cell.index].get<double>();
    tokens.values.push_back(seen);
    error.values.push_back(seen > 0 ? loss("loss_after", cell.index) : kNaN);
    ratio.values.push_back(
        seen > 0 ? loss("loss_after", cell.index) / loss("loss_before", cell.index) : kNaN);
  }
  const Grid grid = grid_of(cells);
  return heat_map(grid, cells, tokens) + heat_map(grid, cells, error) +
         heat_map(grid, cells, ratio);
}

std::string histogram(const Json& counts, const std::string& title) {
  int64_t largest = 1;
  for (const Json& count : counts) {
    largest = std::max(largest, count.get<int64_t>());
  }
  std::string path;
  for (size_t i = 0; i < counts.size(); ++i) {
    const double height = 40 * counts[i].get<double>() / static_cast<double>(largest);
    if (height > 0) {
      path += fmt::format("M{}.5 41V{:.1f}", i, 41 - std::max(height, 0.4));
    }
  }
  return fmt::format(
      R"(<svg class="bars" viewBox="0 0 {} 41" preserveAspectRatio="none" role="img" )"
      R"(aria-label="{}"><path d="{}"/></svg>)",
      counts.size(), escape_html(title), path);
}

}  // namespace blockptq

#include "tools/bench/report.h"

#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>
#include <utility>

namespace hax::bench {
namespace {

// Three significant digits: 1.23, 12.3, 123, 1234.
std::string digits(double value) {
  const double size = std::abs(value);
  return fmt::format("{:.{}f}", value, size < 9.995 ? 2 : size < 99.95 ? 1 : 0);
}

std::string scaled(double value, double base, std::span<const char* const> units) {
  std::size_t unit = 0;
  while (unit + 1 < units.size() && value >= base) {
    value /= base;
    ++unit;
  }
  return digits(value) + " " + units[unit];
}

std::string ratio_text(double value) { return fmt::format("{:.2f}", value); }
std::string error_text(double value) { return fmt::format("{:.1e}", value); }
std::string nanoseconds_text(double value) { return seconds_text(1e-9 * value); }
std::string times_text(double value) { return digits(value) + " x"; }
std::string percent_text(double value) { return digits(100 * value) + " %"; }

struct Field {
  const char* name;
  const char* heading;
  std::optional<double> Row::*member;
  std::string (*text)(double);
};

constexpr Field kFields[] = {
    {"median_s", "median", &Row::median_s, seconds_text},
    {"fastest_s", "fastest", &Row::fastest_s, seconds_text},
    {"ns_per_token", "a token", &Row::ns_per_token, nanoseconds_text},
    {"tokens_per_s", "tokens/s", &Row::tokens_per_s, count_text},
    {"rate", "rate", &Row::rate, count_text},
    {"floor_s", "floor", &Row::floor_s, seconds_text},
    {"ratio", "x floor", &Row::ratio, ratio_text},
    {"floor_full_s", "full", &Row::floor_full_s, seconds_text},
    {"error", "error", &Row::error, error_text},
    {"launched_s", "launched", &Row::launched_s, seconds_text},
    {"alone_s", "alone", &Row::alone_s, seconds_text},
    {"launches", "launches", &Row::launches, count_text},
    {"moved_bytes", "bytes", &Row::moved_bytes, bytes_text},
    {"flops", "FLOPs", &Row::flops, count_text},
    {"copy_share", "of copy", &Row::copy_share, percent_text},
    {"product_share", "of prod.", &Row::product_share, percent_text},
    {"target_share", "target", &Row::target_share, percent_text},
    {"bytes", "pool", &Row::bytes, bytes_text},
    {"predicted_bytes", "predicted", &Row::predicted_bytes, bytes_text},
    {"resident_bytes", "resident", &Row::resident_bytes, bytes_text},
    {"slope", "slope", &Row::slope, ratio_text},
    {"speedup", "speed-up", &Row::speedup, times_text},
    {"cores", "cores", &Row::cores, ratio_text},
    {"hours", "hours", &Row::hours, digits},
    {"peer_s", "peer", &Row::peer_s, seconds_text},
    {"peer_ratio", "faster", &Row::peer_ratio, times_text},
    {"ops", "ops", &Row::ops, count_text},
    {"ns_per_op", "an op", &Row::ns_per_op, nanoseconds_text},
    {"share", "share", &Row::share, ratio_text},
    {"threads", "threads", &Row::threads, count_text},
    {"runs", "runs", &Row::runs, count_text},
    {"tokens", "tokens", &Row::tokens, count_text},
    {"parameters", "weights", &Row::parameters, count_text},
};

struct TextField {
  const char* name;
  std::string Row::*member;
};

constexpr TextField kTexts[] = {{"unit", &Row::unit}, {"kernel", &Row::kernel},
                                {"peer", &Row::peer}, {"peer_allocator", &Row::peer_allocator},
                                {"note", &Row::note}, {"skipped", &Row::skipped}};

const Field& field_of(const std::string& name) {
  for (const Field& field : kFields) {
    if (field.name == name) return field;
  }
  throw Error(fmt::format("no field {} in a row", name));
}

constexpr int kWidth = 100, kColumnWidth = 9, kNarrowestName = 34, kWidestName = 48;

}  // namespace

std::string seconds_text(double seconds) {
  constexpr const char* kUnits[] = {"ns", "us", "ms", "s"};
  return scaled(1e9 * seconds, 1000, kUnits);
}

std::string bytes_text(double bytes) {
  constexpr const char* kUnits[] = {"B", "KB", "MB", "GB", "TB"};
  return scaled(bytes, 1000, kUnits);
}

std::string length_text(std::int64_t length) {
  if (length >= 1 << 20 && length % (1 << 20) == 0) return fmt::format("{}M", length >> 20);
  if (length >= 1 << 10 && length % (1 << 10) == 0) return fmt::format("{}K", length >> 10);
  return std::to_string(length);
}

std::string count_text(double count) {
  if (count < 1000 && count == std::floor(count)) return fmt::format("{:.0f}", count);
  constexpr const char* kUnits[] = {"", "k", "M", "G", "T"};
  return scaled(count, 1000, kUnits);
}

Row& Row::time(const Timing& timing) {
  median_s = timing.median;
  fastest_s = timing.fastest;
  runs = static_cast<double>(timing.runs);
  return *this;
}

Row& Row::over(double floor_seconds) {
  floor_s = floor_seconds;
  if (median_s) ratio = *median_s / floor_seconds;
  return *this;
}

Row& Row::per_token(double count) {
  tokens = count;
  ns_per_token = 1e9 * median_s.value() / count;
  tokens_per_s = count / median_s.value();
  return *this;
}

Row& Row::counted(double counted_bytes, double arithmetic, double bytes_per_s, double flops_per_s) {
  moved_bytes = counted_bytes;
  flops = arithmetic;
  copy_share = counted_bytes / median_s.value() / bytes_per_s;
  product_share = arithmetic / median_s.value() / flops_per_s;
  share = std::max(*copy_share, *product_share);
  return *this;
}

void Report::section(std::string part, std::string title, std::string explanation,
                     std::vector<std::string> columns) {
  part_ = std::move(part);
  columns_ = std::move(columns);
  name_width_ = std::clamp(kWidth - kColumnWidth * static_cast<int>(columns_.size()),
                           kNarrowestName, kWidestName);
  if (json_) return;
  fmt::print("\n{}\n{}\n\n{:<{}}", title, explanation, "", name_width_);
  for (const std::string& name : columns_) {
    fmt::print("{:>{}}", field_of(name).heading, kColumnWidth);
  }
  fmt::print("\n");
  std::fflush(stdout);
}

void Report::add(const Row& row) {
  if (json_) {
    nlohmann::ordered_json json{{"part", part_}, {"name", row.name}};
    if (!device_.empty()) json["device"] = device_;
    for (const Field& field : kFields) {
      const std::optional<double>& value = row.*field.member;
      if (!value) continue;
      if (*value == std::floor(*value)) {
        json[field.name] = static_cast<std::int64_t>(*value);
      } else {
        json[field.name] = *value;
      }
    }
    for (const TextField& field : kTexts) {
      if (!(row.*field.member).empty()) json[field.name] = row.*field.member;
    }
    rows_.push_back(json.dump());
    return;
  }
  const std::string& label = row.label.empty() ? row.name : row.label;
  if (!row.skipped.empty()) {
    fmt::print("{}: skipped, {}\n", label, row.skipped);
  } else {
    fmt::print("{:<{}}", label, name_width_);
    for (const std::string& name : columns_) {
      const Field& field = field_of(name);
      const std::optional<double>& value = row.*field.member;
      fmt::print("{:>{}}", value ? field.text(*value) : "", kColumnWidth);
    }
    fmt::print("{}\n", row.unit);
  }
  if (!row.note.empty()) fmt::print("  {}\n", row.note);
  std::fflush(stdout);
}

void Report::remark(const std::string& text) const {
  if (json_) return;
  fmt::print("{}\n", text);
}

void Report::finish() const {
  if (!json_) return;
  fmt::print("[");
  for (std::size_t i = 0; i < rows_.size(); ++i) {
    fmt::print("{}\n  {}", i == 0 ? "" : ",", rows_[i]);
  }
  fmt::print("\n]\n");
}

}  // namespace hax::bench

#include "data/dataset.h"

#include <nlohmann/json.hpp>

#include "engine/check.h"

namespace hax {
namespace {

constexpr const char* kManifest = "manifest.json";

std::filesystem::path file_in(const std::filesystem::path& folder, Split split) {
  return folder / fmt::format("{}.hax", name_of(split));
}

// A manifest is a function of the files, so opening writes it anew and compares.
template <class File>
nlohmann::ordered_json manifest_of(const DatasetInfo& info,
                                   const std::array<const File*, kSplits.size()>& files) {
  nlohmann::ordered_json json;
  json["format"] = "hax joint recall dataset";
  json["version"] = 1;
  json["origin"] = name_of(info.origin);
  json["seed"] = info.seed;
  const JointRecallTask& task = info.task;
  json["task"] = {{"levels", task.levels},
                  {"contexts", {task.contexts.lo, task.contexts.hi}},
                  {"keys", {task.keys.lo, task.keys.hi}},
                  {"values", task.values}};
  json["vocab_size"] = task.vocab_size();
  json["fixed_length"] = task.fixed_length();
  for (const Split split : kSplits) {
    const File& file = *files[static_cast<std::size_t>(split)];
    json["splits"][std::string(name_of(split))] = {
        {"samples", file.samples()},
        {"tokens", file.tokens()},
        {"checksum", fmt::format("{:016x}", file.checksum())}};
  }
  return json;
}

}  // namespace

void report(const DataProgress& progress, Split split, std::int64_t done, std::int64_t total) {
  if (progress && !progress(split, done, total)) throw Interrupted("interrupted");
}

DatasetWriter::DatasetWriter(const std::filesystem::path& folder, const DatasetInfo& info,
                             bool replace)
    : info_(info), replace_(replace), folder_(folder) {
  for (const Split split : kSplits) {
    const std::filesystem::path path = file_in(folder, split);
    check_usage(
        replace || (!std::filesystem::exists(path) && !std::filesystem::exists(folder / kManifest)),
        "{} holds a dataset already; --force replaces it", folder.string());
    files_[static_cast<std::size_t>(split)] = std::make_unique<SplitWriter>(path, info, split);
  }
}

void DatasetWriter::publish() {
  std::array<const SplitWriter*, kSplits.size()> files;
  for (const Split split : kSplits) {
    const auto s = static_cast<std::size_t>(split);
    files_[s]->finish();
    files[s] = files_[s].get();
  }
  OutputFile manifest(folder_.path() / kManifest);
  manifest.append(manifest_of(info_, files).dump(2) + "\n");
  manifest.finish();
  // From here on nothing takes time. An old manifest goes first: at no moment does one describe
  // files that are not there.
  if (replace_) std::filesystem::remove(folder_.path() / kManifest);
  for (const auto& file : files_) file->publish();
  manifest.publish();
  folder_.keep();
}

Dataset::Dataset(std::filesystem::path folder) : folder_(std::move(folder)) {
  std::error_code ignored;
  check(std::filesystem::is_directory(folder_, ignored), "{}: no such folder", folder_.string());
  const std::filesystem::path path = folder_ / kManifest;
  check(std::filesystem::exists(path, ignored),
        "{}: no dataset here ({} is missing); 'hax data generate' writes one", folder_.string(),
        kManifest);
  std::array<const SplitFile*, kSplits.size()> files;
  for (const Split split : kSplits) {
    const auto s = static_cast<std::size_t>(split);
    files_[s] = std::make_shared<const SplitFile>(file_in(folder_, split));
    files[s] = files_[s].get();
    check(files[s]->split() == split, "{}: holds the split {}, expected {}",
          files[s]->path().string(), name_of(files[s]->split()), name_of(split));
    check(files[s]->info() == files[0]->info(), "{}: its task, seed or origin is not that of {}",
          files[s]->path().string(), files[0]->path().string());
  }

  constexpr std::size_t kLargestManifest = 1 << 16;
  const MappedFile file(path);
  check(file.text().size() <= kLargestManifest, "{}: {} bytes are too many for a manifest",
        path.string(), file.text().size());
  nlohmann::ordered_json manifest;
  try {
    manifest = nlohmann::ordered_json::parse(file.text());
  } catch (const nlohmann::json::parse_error& error) {
    throw Error(fmt::format("{}: not JSON (byte {})", path.string(), error.byte));
  }
  const nlohmann::ordered_json expected = manifest_of(info(), files);
  const auto differences = nlohmann::ordered_json::diff(manifest, expected);
  if (!differences.empty()) {
    throw Error(fmt::format("{}: does not describe the files beside it (at {})", path.string(),
                            differences[0]["path"].get<std::string>()));
  }
}

}  // namespace hax

// hax inspect on the command line; tests/tools/inspect_browser looks at the page in a browser.
#include <doctest/doctest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tests/support/command.h"
#include "tests/support/files.h"

using namespace hax::test;
using Json = nlohmann::json;

namespace {

std::vector<std::string> small_step(const std::string& out) {
  return {"inspect",    "--sparse_arch", "sign_bin_lsh+key_selection",
          "--contexts", "2:3",           "--keys",
          "2:3",        "--out",         out};
}
std::vector<std::string> with(std::vector<std::string> flags, std::vector<std::string> more) {
  flags.insert(flags.end(), more.begin(), more.end());
  return flags;
}

}  // namespace

TEST_CASE("hax inspect writes one page, a graph or its numbers") {
  const TempFolder folder;
  const CommandResult page = run_hax(small_step(folder / "step.html"));
  CHECK(page.code == 0);
  CHECK(page.out.find("ops") != std::string::npos);
  const std::string html = read_text(folder / "step.html");
  CHECK(html.size() < 5'000'000);
  // Nothing is fetched from anywhere.
  for (const char* elsewhere : {"src=", "href=\"http", "url(", "import(", "fetch("}) {
    INFO(elsewhere);
    CHECK(html.find(elsewhere) == std::string::npos);
  }
  for (const char* place :
       {"/*style*/", "/*graph*/", "/*arcs*/", "/*heat*/", "/*pictures*/", "/*main*/", "/*data*/"}) {
    CHECK(html.find(place) == std::string::npos);
  }

  CHECK(run_hax(with(small_step(folder / "step.json"), {"--format", "json"})).code == 0);
  const Json json = Json::parse(read_text(folder / "step.json"));
  CHECK(json["ops"].size() > 30);
  CHECK(json["loss"].get<double>() > 0);
  CHECK(json["attention"].size() == 2);
  CHECK(json["memory"].size() == 2);
  for (const Json& op : json["ops"]) {
    INFO(op["op"].get<std::string>());
    const std::string name = op["op"];
    CHECK((json["formulas"].contains(name)));
    CHECK(!json["formulas"][name].get<std::string>().empty());
  }
  const Json& target = json["targets"][0];
  const std::size_t answer = target["answer"], position = target["position"];
  const Json& labels = json["samples"][0]["labels"];
  CHECK(labels[answer] == labels[position]);
  CHECK(labels[answer + 1] == target["label"]);

  CHECK(run_hax(with(small_step(folder / "step.dot"), {"--format", "dot"})).code == 0);
  const std::string dot = read_text(folder / "step.dot");
  CHECK(dot.starts_with("digraph"));
  CHECK(dot.find("cluster_backbone.layers.0.mixer") != std::string::npos);
  CHECK(dot.find("op0 -> ") != std::string::npos);
}

TEST_CASE("hax inspect keeps its page below 5 MB by leaving out rows, and says so") {
  const TempFolder folder;
  const auto page_of = [&](std::vector<std::string> flags) {
    flags.insert(flags.begin(), {"inspect", "--out", folder / "step.html"});
    CHECK(run_hax(flags).code == 0);
    const std::string html = read_text(folder / "step.html");
    CHECK(html.size() < 5'000'000);
    constexpr std::string_view kStart = R"(id="data">)";
    const std::size_t begin = html.find(kStart) + kStart.size();
    return Json::parse(html.substr(begin, html.find("</script>", begin) - begin));
  };
  const Json small = page_of({"--contexts", "2:2", "--keys", "2:2"});
  CHECK(small["row_stride"] == 1);
  CHECK(small["pictures_left_out"] == 0);
  const Json large = page_of(
      {"--base_arch", "transformer", "--contexts", "12:12", "--keys", "12:12", "--samples", "6"});
  CHECK(large["row_stride"] > 1);
  CHECK(large["attention"].size() == 12);
  // Questions stay as long as there is room.
  for (const Json& target : large["targets"]) {
    if (target["sample"] != 3 || large["asked_stride"] != 1) continue;
    const std::size_t position = target["position"];
    CHECK(!large["attention"][3]["packed"][position].is_null());
  }
}

TEST_CASE("hax inspect refuses what does not go together in one line") {
  const TempFolder folder;
  const auto error = [&](std::vector<std::string> flags) {
    const CommandResult result = run_hax(flags);
    CHECK(result.code != 0);
    CHECK(std::count(result.err.begin(), result.err.end(), '\n') == 1);
    return result.err;
  };
  const std::string out = folder / "step.html";
  CHECK(error({"inspect"}).find("--out is missing") != std::string::npos);
  CHECK(error({"inspect", "--out", out, "--format", "pdf"}).find("html, json or dot") !=
        std::string::npos);
  CHECK(error({"inspect", "--out", out, "--checkpoint", folder / "none"}).find("none") !=
        std::string::npos);
  CHECK(error({"inspect", "--out", out, "--fixture", folder / "none"}).find("none") !=
        std::string::npos);
  CHECK(error({"inspect", "--out", out, "--split", "exam"}).find("exam") != std::string::npos);
  CHECK(error({"inspect", "--out", out, "--checkpoint", "x", "--base_arch", "mamba2"})
            .find("--base_arch") != std::string::npos);
}

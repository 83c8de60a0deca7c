#include "train/reporter.h"

#include <doctest/doctest.h>

#include "tests/support/command.h"

using namespace hax;
using namespace hax::test;

TEST_CASE("durations are readable") {
  CHECK(format_duration(3.6) == "4 s");
  CHECK(format_duration(200) == "3 min 20 s");
  CHECK(format_duration(3900) == "1 h 5 min");
  CHECK(format_duration(-1) == "0 s");
}

TEST_CASE("where there is no terminal, lines are plain, rare and complete") {
  const TempFolder folder;
  {
    std::FILE* out = std::fopen((folder / "out").c_str(), "w");
    Reporter reporter(out, nullptr, 10, 5);
    for (int step = 1; step <= 10; ++step) {
      reporter.step(step, {.lm_loss = 2, .gate_loss = 0.5, .accuracy = 0.25, .tokens = 100});
    }
    reporter.line("done");
    std::fclose(out);
  }
  const std::string text = read_text(folder / "out");
  CHECK(text.find('\r') == std::string::npos);
  CHECK(text.find("step 5/10  loss 2.0000  ranking 0.5000  accuracy  25.0 %") != std::string::npos);
  CHECK(text.find("step 10/10") != std::string::npos);
  CHECK(text.find("step 4/10") == std::string::npos);
  CHECK(text.ends_with("done\n"));
}

#include "train/reporter.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <utility>

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

TEST_CASE("a line that does not fit loses its least important parts, then its end") {
  const std::vector<LinePart> parts{{"step 1/9", 3}, {"loss 2", 2}, {"fast", 0}, {"slow", 0}};
  CHECK(fit_line(parts, std::string::npos) == "step 1/9  loss 2  fast  slow");
  CHECK(fit_line(parts, 28) == "step 1/9  loss 2  fast  slow");
  CHECK(fit_line(parts, 27) == "step 1/9  loss 2  fast");
  CHECK(fit_line(parts, 22) == "step 1/9  loss 2  fast");
  CHECK(fit_line(parts, 21) == "step 1/9  loss 2");
  CHECK(fit_line(parts, 15) == "step 1/9");
  CHECK(fit_line(parts, 3) == "ste");
  CHECK(fit_line(parts, 0).empty());
  CHECK(fit_line({}, 10).empty());
}

TEST_CASE("the live line of a terminal is never wider than the terminal") {
  const int master = ::posix_openpt(O_RDWR | O_NOCTTY);
  REQUIRE(master >= 0);
  REQUIRE(::grantpt(master) == 0);
  REQUIRE(::unlockpt(master) == 0);
  std::FILE* out = std::fopen(::ptsname(master), "w");
  REQUIRE(out != nullptr);
  // A terminal that does not know its width counts as 80 columns wide.
  for (const auto& [told, usable] : {std::pair<unsigned short, std::size_t>{40, 39}, {0, 79}}) {
    INFO(told);
    const ::winsize size{.ws_row = 24, .ws_col = told, .ws_xpixel = 0, .ws_ypixel = 0};
    REQUIRE(::ioctl(master, TIOCSWINSZ, &size) == 0);
    Reporter(out, nullptr, 1000000, 5)
        .step(123456, {.lm_loss = 2, .gate_loss = 0.5, .accuracy = 0.25, .tokens = 1000000});
    std::string text(1000, ' ');
    const ssize_t count = ::read(master, text.data(), text.size());
    REQUIRE(count > 0);
    text.resize(static_cast<std::size_t>(count));
    REQUIRE(text.starts_with("\r\x1b[Kstep 123456/1000000  loss 2.0000"));
    CHECK(text.size() - 4 <= usable);
    CHECK(text.find('\n') == std::string::npos);
  }
  std::fclose(out);
  ::close(master);
}

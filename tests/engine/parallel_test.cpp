#include "engine/parallel.h"

#include <doctest/doctest.h>
#include <omp.h>

#include <atomic>
#include <limits>
#include <vector>

#include "engine/check.h"
#include "engine/denormals.h"

using namespace hax;

TEST_CASE("pieces: contiguous, all of the items, none too small, no more than there may be") {
  for (const std::int64_t count : {0, 1, 9, 10, 11, 20, 29, 79, 80, 81, 1000}) {
    const Pieces pieces(count, 10);
    CHECK(pieces.number() >= 1);
    CHECK(pieces.number() <= Pieces::kMost);
    CHECK(pieces.begin(0) == 0);
    CHECK(pieces.end(pieces.number() - 1) == count);
    for (std::int64_t p = 0; p < pieces.number(); ++p) {
      if (pieces.number() > 1) CHECK(pieces.end(p) - pieces.begin(p) >= 10);
    }
  }
  CHECK(Pieces(19, 10).number() == 1);
  CHECK(Pieces(20, 10).number() == 2);
}

TEST_CASE("parallel_for runs every piece once, on any number of threads") {
  const int before = omp_get_max_threads();
  for (const int threads : {1, 2, 5}) {
    omp_set_num_threads(threads);
    std::vector<std::atomic<int>> runs(17);
    parallel_for(17, [&](std::int64_t p) { ++runs[static_cast<std::size_t>(p)]; });
    for (const auto& count : runs) CHECK(count == 1);
    parallel_for(0, [&](std::int64_t) { FAIL("there is no piece"); });
  }
  omp_set_num_threads(before);
}

TEST_CASE("parallel_for inside parallel_for stays on its thread") {
  const int before = omp_get_max_threads();
  omp_set_num_threads(3);
  std::atomic<int> inner = 0, elsewhere = 0;
  parallel_for(4, [&](std::int64_t) {
    const int thread = omp_get_thread_num();
    parallel_for(5, [&](std::int64_t) {
      ++inner;
      if (omp_get_level() != 1 || omp_get_thread_num() != thread) ++elsewhere;
    });
  });
  CHECK(inner == 20);
  CHECK(elsewhere == 0);
  omp_set_num_threads(before);
}

TEST_CASE("parallel_for passes on the exception of the first piece that failed") {
  const int before = omp_get_max_threads();
  for (const int threads : {1, 2}) {
    omp_set_num_threads(threads);
    const auto failing = [](std::int64_t p) {
      if (p == 3 || p == 6) throw Error(fmt::format("piece {}", p));
    };
    CHECK_THROWS_WITH_AS(parallel_for(8, failing), "piece 3", Error);
  }
  omp_set_num_threads(before);
}

TEST_CASE("every piece treats denormals as the caller does, and its thread as before afterwards") {
  const int before = omp_get_max_threads();
  omp_set_num_threads(2);
  const auto count_zero = [] {
    std::atomic<int> zero = 0;
    parallel_for(4, [&](std::int64_t) {
      volatile float smallest = std::numeric_limits<float>::min();
      const volatile float half = smallest * 0.5F;
      if (half == 0) ++zero;
    });
    return zero.load();
  };
  CHECK(count_zero() == 0);
#if defined(__SSE__) || defined(__aarch64__)
  {
    const FlushDenormals flush;
    CHECK(count_zero() == 4);
  }
#endif
  CHECK(count_zero() == 0);
  omp_set_num_threads(before);
}

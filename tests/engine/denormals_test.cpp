#include "engine/denormals.h"

#include <doctest/doctest.h>

#include <limits>

using namespace hax;

TEST_CASE("denormals are zero inside the guard and as before after it") {
  volatile float smallest = std::numeric_limits<float>::min();
  volatile float half = 0.5F;
  CHECK(smallest * half > 0);
#if defined(__SSE__) || defined(__aarch64__)
  {
    const FlushDenormals outer;
    const volatile float product = smallest * half;
    CHECK(product == 0);
    { const FlushDenormals inner; }
    const volatile float again = smallest * half;
    CHECK(again == 0);
  }
#endif
  CHECK(smallest * half > 0);
}

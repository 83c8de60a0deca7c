#include <cmath>
#include <limits>

#include "train/fixture.h"

namespace hax {

FixtureError worst_of(const std::vector<FixtureError>& errors) {
  FixtureError worst{"nothing", 0};
  for (const FixtureError& error : errors) {
    if (std::isnan(error.error)) return {error.what, std::numeric_limits<double>::infinity()};
    if (error.error > worst.error) worst = error;
  }
  return worst;
}

}  // namespace hax

#include "engine/parallel.h"

#include <omp.h>

#include <exception>
#include <vector>

#include "engine/denormals.h"

namespace hax {

void parallel_for(std::int64_t number, const std::function<void(std::int64_t)>& body) {
  if (number <= 1 || omp_in_parallel() != 0) {
    for (std::int64_t piece = 0; piece < number; ++piece) body(piece);
    return;
  }
  const DenormalMode mode = DenormalMode::current();
  std::vector<std::exception_ptr> errors(static_cast<std::size_t>(number));
#pragma omp parallel for schedule(dynamic, 1)
  for (std::int64_t piece = 0; piece < number; ++piece) {
    const DenormalMode before = DenormalMode::current();
    mode.apply();
    try {
      body(piece);
    } catch (...) {
      errors[static_cast<std::size_t>(piece)] = std::current_exception();
    }
    before.apply();
  }
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

}  // namespace hax

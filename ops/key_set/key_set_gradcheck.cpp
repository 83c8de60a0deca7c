#include "ops/gradcheck.h"

namespace hax {

// Which keys a query sees is a discrete choice: no gradient exists. The attention over the chosen
// keys is checked in sparse_attention.
std::vector<GradCase> key_set_gradchecks() { return {}; }

}  // namespace hax

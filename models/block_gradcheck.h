// Finite-difference checks of whole blocks and whole small models: what the checks of single ops
// (ops/gradcheck.h) cannot see, the wiring between them.
#pragma once

#include "ops/gradcheck.h"

namespace hax {

/// Cases of every base with every sparse branch that its configuration takes, shrunk to odd sizes:
/// * each kind of block, x + mixer(norm(x)) [+ mlp(norm(.))], with respect to x and its parameters;
/// * two layers from tokens to logits, with respect to all parameters;
/// * their ranking loss with respect to what it trains (the scoring network), where there is one.
///
/// Which keys a query sees is piecewise constant, so finite differences are right only where no
/// choice changes. Each case's draw keeps a distance from the edges, and each evaluation compares
/// its key sets with those of the case's own point: it throws Error when they differ.
std::vector<GradCase> block_gradchecks();

}  // namespace hax

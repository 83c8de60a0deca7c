// Arithmetic of lsh, once for each device.
#pragma once

#include "ops/lsh/lsh.h"

namespace hax {

/// x [T, N], hash [N, h] -> bins int64 [T]; see lsh_bins. mean, with the causal centre and norm
/// only: complete, read, and brought forward in place; null: starts from nothing.
void hash_rows(Cpu, const Tensor& x, const Tensor& hash, const Sequences& sequences, LshRule rule,
               LshCenter center, NormMode norm, CarriedMean* mean, Tensor& bins);
void hash_rows(Cuda, const Tensor& x, const Tensor& hash, const Sequences& sequences, LshRule rule,
               LshCenter center, NormMode norm, CarriedMean* mean, Tensor& bins);

/// key_bin int64 [T] -> death, expire, order int32 [T], the band of KeySet: death_j = j, and
/// expire_j is the position of the `keys`-th later key of j's bin.
void band_of_bins(Cpu, const Tensor& key_bin, const Sequences& sequences, std::int64_t keys,
                  Tensor& death, Tensor& expire, Tensor& order);
void band_of_bins(Cuda, const Tensor& key_bin, const Sequences& sequences, std::int64_t keys,
                  Tensor& death, Tensor& expire, Tensor& order);

}  // namespace hax

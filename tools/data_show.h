// Samples for the eye.
#pragma once

#include <cstdio>
#include <span>
#include <string>

#include "data/sample_source.h"

/// "A a 3 b 2 B a 1 b 0 | B b ?0 a ?1 A a ?3 b ?2": contexts in upper case (with a ' for each level
/// further out), keys in lower case, values as numbers; those to be recalled carry a question mark.
std::string readable(const hax::JointRecallTask& task, std::span<const std::int32_t> tokens);

/// Two lines: number, sizes and length; the sample. With `numbers`, its tokens alone.
void print_sample(std::FILE* out, const hax::SampleSource& source, hax::Split split,
                  std::int64_t index, bool numbers);

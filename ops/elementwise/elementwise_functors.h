// The functions of elementwise.h: value and derivative as plain arithmetic, shared by the devices.
//
// A unary functor has value(x) and derivative(x) = f'(x); a binary one value(a, b), d_first(a, b) =
// df/da and d_second(a, b) = df/db. Each states its name and is listed in UnaryFunction or
// BinaryFunction below: the kernels are generated for every function in these lists, and the
// gradient checks walk through them.
#pragma once

#include <variant>

#include "ops/vector_math.h"

namespace hax::functor {

/// x sigma(x)
struct Silu {
  static constexpr const char* name = "silu";
  template <class T>
  constexpr T value(T x) const {
    return x * fast_sigmoid(x);
  }
  template <class T>
  constexpr T derivative(T x) const {
    const T s = fast_sigmoid(x);
    return s * (1 + x * (1 - s));
  }
};

/// log(1 + e^x)
struct Softplus {
  static constexpr const char* name = "softplus";
  template <class T>
  constexpr T value(T x) const {
    return fast_softplus(x);
  }
  template <class T>
  constexpr T derivative(T x) const {
    return fast_sigmoid(x);
  }
};

/// max(x, 0), derivative 0 at 0
struct Relu {
  static constexpr const char* name = "relu";
  template <class T>
  constexpr T value(T x) const {
    return x < 0 ? 0 : x;  // this way round NaN stays NaN
  }
  template <class T>
  constexpr T derivative(T x) const {
    return x > 0 ? 1 : 0;
  }
};

/// 1 / (1 + e^-x)
struct Sigmoid {
  static constexpr const char* name = "sigmoid";
  template <class T>
  constexpr T value(T x) const {
    return fast_sigmoid(x);
  }
  template <class T>
  constexpr T derivative(T x) const {
    // sigma(-x) and not 1 - sigma(x), which loses all digits for large x.
    return fast_sigmoid(x) * fast_sigmoid(-x);
  }
};

/// -e^x
struct NegExp {
  static constexpr const char* name = "neg_exp";
  template <class T>
  constexpr T value(T x) const {
    return -fast_exp(x);
  }
  template <class T>
  constexpr T derivative(T x) const {
    return -fast_exp(x);
  }
};

/// factor x
struct Scale {
  static constexpr const char* name = "scale";
  double factor = 1;
  template <class T>
  constexpr T value(T x) const {
    return x * static_cast<T>(factor);
  }
  template <class T>
  constexpr T derivative(T) const {
    return static_cast<T>(factor);
  }
};

/// min(max(x, low), high), derivative 1 from low to high and 0 outside
struct Clamp {
  static constexpr const char* name = "clamp";
  double low = -1, high = 1.5;
  template <class T>
  constexpr T value(T x) const {
    const T above = x < static_cast<T>(low) ? static_cast<T>(low) : x;
    return above > static_cast<T>(high) ? static_cast<T>(high) : above;
  }
  template <class T>
  constexpr T derivative(T x) const {
    return x >= static_cast<T>(low) && x <= static_cast<T>(high) ? 1 : 0;
  }
};

/// a + b
struct Add {
  static constexpr const char* name = "add";
  template <class T>
  constexpr T value(T a, T b) const {
    return a + b;
  }
  template <class T>
  constexpr T d_first(T, T) const {
    return 1;
  }
  template <class T>
  constexpr T d_second(T, T) const {
    return 1;
  }
};

/// a b
struct Mul {
  static constexpr const char* name = "mul";
  template <class T>
  constexpr T value(T a, T b) const {
    return a * b;
  }
  template <class T>
  constexpr T d_first(T, T b) const {
    return b;
  }
  template <class T>
  constexpr T d_second(T a, T) const {
    return a;
  }
};

/// a silu(b)
struct MulSilu {
  static constexpr const char* name = "mul_silu";
  template <class T>
  constexpr T value(T a, T b) const {
    return a * Silu{}.value(b);
  }
  template <class T>
  constexpr T d_first(T, T b) const {
    return Silu{}.value(b);
  }
  template <class T>
  constexpr T d_second(T a, T b) const {
    return a * Silu{}.derivative(b);
  }
};

using UnaryFunction = std::variant<Silu, Softplus, Relu, Sigmoid, NegExp, Scale, Clamp>;
using BinaryFunction = std::variant<Add, Mul, MulSilu>;

}  // namespace hax::functor

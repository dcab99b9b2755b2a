// Numbers in messages, spelled as JavaScript spells them.
#pragma once
#include <cmath>
#include <cstdio>
#include <string>

namespace hpformer {

// NaN, Infinity, or nine digits: all of a float32, and no "0.000000" for what is small.
inline std::string numberText(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value < 0 ? "-Infinity" : "Infinity";
  char text[32];
  std::snprintf(text, sizeof text, "%.9g", value);
  return text;
}

}  // namespace hpformer

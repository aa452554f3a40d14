// The parameters of CONFIG GET and CONFIG SET: how each is shown, and how its new value is read.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "src/command/services.hpp"

namespace isthmus {

/// What became of a new value: what to do about it, or why not.
struct ParameterChange {
  std::function<void(Services&)> apply;  ///< with all shards locked
  std::string error;                     ///< Redis's words, without prefix; empty if the value is good
};

struct Parameter {
  std::string name;
  std::function<std::string(const Services&)> show;
  /// Reads a new value; nothing that a client sees has changed yet when it returns. Null: Redis cannot change
  /// this one either.
  std::function<ParameterChange(const Services&, std::string_view)> read;
};

/// Raises the process's limit of open files for so many clients, as far as that goes. Returns how many of
/// them it allows then, at least 1.
std::uint32_t clients_within_file_limit(std::uint32_t wanted);

/// All of them, by name.
std::span<const Parameter> config_parameters();

/// The one of that name in any letter case, or null.
const Parameter* find_parameter(std::string_view name);

}  // namespace isthmus

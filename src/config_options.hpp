// What an option is made of: shared by the files that define options, and by nobody else.
#pragma once

#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "src/config.hpp"

namespace isthmus {

/// What is wrong, without the place. Never holds a value that may be a secret.
struct BadConfig : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Puts the text of a value into the structure. Throws BadConfig.
using Setter = std::function<void(Config&, const std::string&)>;

struct OptionSpec {
  std::string name;
  std::string type;
  std::string group;
  std::string help;
  Setter set;
  int max_words = 1;
  bool repeats = false;  ///< every occurrence counts, not the last one
};

/// Redis's `yes` and `no`.
bool yes_or_no(const std::string& text);
/// A port from 0 on, or nothing for `off`.
std::optional<std::uint16_t> port_or_off(const std::string& text);

/// The options `tls-…`.
std::vector<OptionSpec> tls_options();
/// What no single option of them can know. `shared`: several servers may be on the backend. Throws BadConfig.
void check_tls(const Config& config, bool shared);

}  // namespace isthmus

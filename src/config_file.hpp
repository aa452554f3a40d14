// Reads the config file: lines `name = value`, which are TOML as well as INI.
#pragma once

#include <istream>
#include <stdexcept>
#include <string>
#include <vector>

namespace isthmus {

/// One setting of a config file.
struct ConfigFileEntry {
  std::string name;
  std::string value;     ///< without quotes; the parts of a list `["a", "b"]` are joined by commas
  std::size_t line = 0;  ///< counted from 1
};

/// A line that is none of those that a config file may have.
struct ConfigFileError : std::runtime_error {
  ConfigFileError(std::size_t at_line, const std::string& what) : std::runtime_error(what), line(at_line) {}
  std::size_t line;
};

/// Reads all lines. A line is blank, a comment (# or ; first), or `name = value` with a bare value, one in
/// single quotes (taken as it is), one in double quotes (a backslash before `"` or itself is dropped) or a
/// list of these in brackets on the same line; a comment may follow behind a blank. Throws ConfigFileError;
/// its text never repeats a value, which may be a secret.
std::vector<ConfigFileEntry> read_config_file(std::istream& input);

}  // namespace isthmus

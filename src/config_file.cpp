// Reads the config file. CLI11 has a reader too, but that of version 2.1 cuts quoted values at `#`, which
// would shorten a password without a word, and knows no line numbers.
#include "src/config_file.hpp"

#include <string_view>

namespace isthmus {
namespace {

constexpr std::string_view kBlanks = " \t\r";

std::string_view trim(std::string_view text) {
  const std::size_t first = text.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
}

// Reads one value from a line, from left to right.
class ValueReader {
 public:
  ValueReader(std::string_view rest, std::size_t line) : rest_(rest), line_(line) {}

  std::string read() {
    std::string value = !rest_.empty() && rest_.front() == '[' ? read_list() : read_scalar("");
    skip_blanks();
    if (!rest_.empty() && rest_.front() != '#')
      throw ConfigFileError(line_, "there is more behind the value");
    return value;
  }

 private:
  void skip_blanks() {
    while (!rest_.empty() && kBlanks.find(rest_.front()) != std::string_view::npos) rest_.remove_prefix(1);
  }

  std::string read_list() {
    rest_.remove_prefix(1);
    std::string joined;
    while (true) {
      skip_blanks();
      if (rest_.empty()) throw ConfigFileError(line_, "the list lacks its ]");
      if (rest_.front() == ']') {
        rest_.remove_prefix(1);
        return joined;
      }
      if (rest_.front() == ',') {
        rest_.remove_prefix(1);
        continue;
      }
      if (!joined.empty()) joined += ',';
      joined += read_scalar(",]");
    }
  }

  // A value that, when bare, ends at one of `enders`, at a comment or at the end of the line.
  std::string read_scalar(std::string_view enders) {
    if (rest_.empty()) return {};
    if (rest_.front() == '"' || rest_.front() == '\'') return read_quoted(rest_.front());
    std::size_t end = rest_.find_first_of(enders);
    const std::size_t comment = find_comment();
    if (comment < end) end = comment;
    const std::string_view value = trim(rest_.substr(0, end));
    rest_.remove_prefix(end == std::string_view::npos ? rest_.size() : end);
    return std::string(value);
  }

  std::size_t find_comment() const {
    for (std::size_t at = rest_.find('#'); at != std::string_view::npos; at = rest_.find('#', at + 1)) {
      if (at == 0 || kBlanks.find(rest_[at - 1]) != std::string_view::npos) return at;
    }
    return std::string_view::npos;
  }

  std::string read_quoted(char quote) {
    std::string value;
    for (std::size_t i = 1; i < rest_.size(); ++i) {
      if (rest_[i] == quote) {
        rest_.remove_prefix(i + 1);
        return value;
      }
      const bool escape = quote == '"' && rest_[i] == '\\' && i + 1 < rest_.size();
      if (escape && (rest_[i + 1] == '"' || rest_[i + 1] == '\\')) ++i;
      value += rest_[i];
    }
    throw ConfigFileError(line_, "the closing quote is missing");
  }

  std::string_view rest_;
  std::size_t line_;
};

}  // namespace

std::vector<ConfigFileEntry> read_config_file(std::istream& input) {
  std::vector<ConfigFileEntry> entries;
  std::string text;
  for (std::size_t line = 1; std::getline(input, text); ++line) {
    const std::string_view content = trim(text);
    if (content.empty() || content.front() == '#' || content.front() == ';') continue;
    if (content.front() == '[') throw ConfigFileError(line, "sections are not used here");
    const std::size_t equals = content.find('=');
    if (equals == std::string_view::npos) throw ConfigFileError(line, "expected name = value");
    const std::string_view name = trim(content.substr(0, equals));
    if (name.empty()) throw ConfigFileError(line, "expected name = value");
    const std::string_view rest = trim(content.substr(equals + 1));
    entries.push_back({std::string(name), ValueReader(rest, line).read(), line});
  }
  return entries;
}

}  // namespace isthmus

// Finds secrets as the commands themselves find them.
#include "src/command/secrets.hpp"

#include "src/command/call.hpp"

namespace isthmus {
namespace {

// AUTH takes one or two; with more it is refused before anything is taken for a secret, but people mistype.
void redact_auth(std::vector<std::string_view>& args) {
  for (std::size_t i = 1; i < args.size(); ++i) args[i] = kRedacted;
}

void redact_hello(std::vector<std::string_view>& args) {
  for (std::size_t i = 2; i < args.size(); ++i) {
    if (equals_ignoring_case(args[i], "setname")) {
      ++i;
    } else if (equals_ignoring_case(args[i], "auth")) {
      for (std::size_t secret = i + 1; secret <= i + 2 && secret < args.size(); ++secret)
        args[secret] = kRedacted;
      i += 2;
    }
  }
}

void redact_config_set(std::vector<std::string_view>& args) {
  for (std::size_t i = 2; i + 1 < args.size(); i += 2) {
    const bool secret = equals_ignoring_case(args[i], "requirepass") ||
                        equals_ignoring_case(args[i], "masterauth") ||
                        equals_ignoring_case(args[i], "masteruser");
    if (secret) args[i + 1] = kRedacted;
  }
}

}  // namespace

bool may_carry_secrets(const Command& command) {
  return command.name == "auth" || command.name == "hello" || command.name == "config|set";
}

std::vector<std::string_view> without_secrets(const Command& command,
                                              std::span<const std::string_view> args) {
  std::vector<std::string_view> shown(args.begin(), args.end());
  if (command.name == "auth") redact_auth(shown);
  if (command.name == "hello") redact_hello(shown);
  if (command.name == "config|set") redact_config_set(shown);
  return shown;
}

}  // namespace isthmus

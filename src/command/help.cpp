// HELP of the container commands.
#include "src/command/help.hpp"

#include <string>

namespace isthmus {

void reply_help(Call& call, std::string_view container, std::initializer_list<std::string_view> lines) {
  call.reply.array(lines.size() + 3);
  call.reply.simple(std::string(container) + " <subcommand> [<arg> [value] [opt] ...]. Subcommands are:");
  for (const std::string_view line : lines) call.reply.simple(line);
  call.reply.simple("HELP");
  call.reply.simple("    Show these lines.");
}

void reply_subcommand_error(Call& call, std::string_view container) {
  constexpr std::size_t kQuotedBytes = 128;  // as server.c of Redis 7.0 cuts it
  std::string text = "ERR unknown subcommand or wrong number of arguments for '";
  text.append(call.args[1].substr(0, kQuotedBytes)).append("'. Try ").append(container).append(" HELP.");
  call.reply.error(text);
}

}  // namespace isthmus

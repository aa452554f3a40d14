// MODULE for a server that loads none: programs that look for modules ask MODULE LIST.
#include "src/command/call.hpp"
#include "src/command/containers.hpp"
#include "src/command/help.hpp"

namespace isthmus {
namespace {

// MODULE LIST.
void list(Call& call) { call.reply.array(0); }

// MODULE HELP.
void help(Call& call) { reply_help(call, "MODULE", {"LIST", "    Show the modules. There are none."}); }

constexpr std::string_view kGroup = "server";

constexpr Command kSubcommands[] = {
    {"module|help", help, 2, kLoading | kStale, 0, 0, 0, 0, kGroup, "5.0.0", "O(1)", "Lists the subcommands"},
    {"module|list", list, 2, kAdmin | kNoscript, 0, 0, 0, 0, kGroup, "4.0.0",
     "O(N) where N is the number of loaded modules.", "Lists the modules, of which there is none"},
};

}  // namespace

std::span<const Command> module_subcommands() { return kSubcommands; }

}  // namespace isthmus

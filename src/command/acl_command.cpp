// ACL for the one user there is
// (https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/).
#include <algorithm>
#include <string>
#include <vector>

#include "src/command/call.hpp"
#include "src/command/command_facts.hpp"
#include "src/command/containers.hpp"
#include "src/command/help.hpp"

namespace isthmus {
namespace {

// ACL WHOAMI.
void whoami(Call& call) { call.reply.bulk("default"); }

// ACL USERS.
void users(Call& call) {
  call.reply.array(1);
  call.reply.bulk("default");
}

// ACL LIST: the user's rules. A password is not shown, not even as a hash.
void list(Call& call) {
  call.reply.array(1);
  call.reply.bulk(call.services.settings.has_password() ? "user default on ~* &* +@all"
                                                        : "user default on nopass ~* &* +@all");
}

// ACL CAT [category]: all categories, or the commands of one.
void cat(Call& call) {
  const auto categories = all_categories();
  if (call.argc() == 2) {
    call.reply.array(categories.size());
    for (const std::string_view category : categories) call.reply.bulk(category);
    return;
  }
  if (call.argc() > 3) {
    reply_subcommand_error(call, "ACL");
    return;
  }
  const std::string wanted = lower(call.args[2]);
  if (std::find(categories.begin(), categories.end(), wanted) == categories.end()) {
    std::string text = "ERR Unknown category '";
    call.reply.error(text.append(call.args[2]).append("'"));
    return;
  }
  std::vector<std::string_view> names;
  for (std::size_t i = 0; i < command_count(); ++i) {
    if (command_at(i).has(kInternal)) continue;
    const auto own = category_names(command_at(i));
    if (std::find(own.begin(), own.end(), wanted) != own.end()) names.push_back(command_at(i).name);
  }
  call.reply.array(names.size());
  for (const std::string_view name : names) call.reply.bulk(name);
}

// ACL HELP.
void help(Call& call) {
  reply_help(
      call, "ACL",
      {"CAT [<category>]", "    Show the categories of commands, or the commands of one.", "LIST",
       "    Show the rules of each user.", "USERS", "    Show the users. There is only one, called default.",
       "WHOAMI", "    Show the user of this connection."});
}

constexpr std::string_view kGroup = "server";
constexpr std::uint32_t kRead = kNoscript | kLoading | kStale;
constexpr std::uint32_t kManage = kAdmin | kNoscript | kLoading | kStale;
constexpr std::string_view kPerUser = "O(N). Where N is the number of configured users.";

constexpr Command kSubcommands[] = {
    {"acl|cat", cat, -2, kRead, 0, 0, 0, 0, kGroup, "6.0.0",
     "O(1) since the categories and commands are a fixed set.", "Lists categories, or the commands of one"},
    {"acl|help", help, 2, kLoading | kStale, 0, 0, 0, 0, kGroup, "6.0.0", "O(1)", "Lists the subcommands"},
    {"acl|list", list, 2, kManage, 0, 0, 0, 0, kGroup, "6.0.0", kPerUser, "Lists the rules of each user"},
    {"acl|users", users, 2, kManage, 0, 0, 0, 0, kGroup, "6.0.0", kPerUser, "Lists the users"},
    {"acl|whoami", whoami, 2, kRead, 0, 0, 0, 0, kGroup, "6.0.0", "O(1)",
     "Answers the user of this connection"},
};

}  // namespace

std::span<const Command> acl_subcommands() { return kSubcommands; }

}  // namespace isthmus

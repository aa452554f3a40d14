// DEBUG: the few subcommands that clients and tests use, without any that could harm
// (https://redis.io/docs/latest/commands/debug/).
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "src/command/containers.hpp"
#include "src/command/help.hpp"
#include "src/command/keys.hpp"
#include "src/keyspace/digest.hpp"

namespace isthmus {
namespace {

// DEBUG SLEEP seconds: this connection, and no other, stands still for so long. What is no number is 0, as in
// Redis.
void debug_sleep(Call& call) {
  constexpr double kLongestSeconds = 86'400;
  const double seconds = std::strtod(std::string(call.args[2]).c_str(), nullptr);
  if (seconds > 0) {
    call.client.sleep_until_ms =
        steady_clock_ms() + static_cast<std::int64_t>(std::ceil(std::min(seconds, kLongestSeconds) * 1000));
  }
  call.reply.ok();
}

// DEBUG OBJECT key: a line about the key, in Redis's form. There is no LRU clock for each key, so its two
// figures are 0.
void debug_object(Call& call) {
  const Node* node = call.find_for_write(call.key(2));
  if (node == nullptr) {
    call.reply.error(error::kNoSuchKey);
    return;
  }
  const std::size_t bytes = node->value_size + hash_bytes(*node, 0);
  std::string text = "Value at:0x";
  char address[20];
  std::snprintf(address, sizeof address, "%jx",
                static_cast<std::uintmax_t>(reinterpret_cast<std::uintptr_t>(node)));
  text.append(address).append(" refcount:1 encoding:").append(encoding_name(*node));
  text.append(" serializedlength:").append(std::to_string(bytes)).append(" lru:0 lru_seconds_idle:0");
  call.reply.simple(text);
}

// DEBUG DIGEST: 40 hexadecimal digits that are the same wherever the same keys are there, zeros if none is.
// Not the digits that Redis would give.
void debug_digest(Call& call) {
  call.evaluation().touch_all();
  call.reply.simple(digest(call.services.keyspace, call.now_ms()));
}

void debug_help(Call& call) {
  reply_help(
      call, "DEBUG",
      {"DIGEST", "    Show a number that stands for all keys.", "OBJECT <key>", "    Show how a key is kept.",
       "SET-ACTIVE-EXPIRE (0|1)", "    Accepted; expired keys are always removed in time.", "SLEEP <seconds>",
       "    Let this connection stand still. Decimals allowed."});
}

}  // namespace

void debug(Call& call) {
  if (call.argc() == 2 && call.is(1, "help")) {
    debug_help(call);
  } else if (call.argc() == 2 && call.is(1, "digest")) {
    debug_digest(call);
  } else if (call.argc() == 3 && call.is(1, "sleep")) {
    debug_sleep(call);
  } else if (call.argc() == 3 && call.is(1, "object")) {
    debug_object(call);
  } else if (call.argc() == 3 && call.is(1, "set-active-expire")) {
    call.reply.ok();
  } else {
    reply_subcommand_error(call, "DEBUG");
  }
}

}  // namespace isthmus

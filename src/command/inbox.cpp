#include "src/command/inbox.hpp"

#include <algorithm>
#include <string>
#include <vector>

#include "src/command/call.hpp"
#include "src/command/dispatcher.hpp"
#include "src/observe/logging.hpp"

namespace isthmus {
namespace {

// The command that does what the row says; empty for an operation of a newer schema. `number` keeps a text.
std::vector<std::string_view> command_of(const backend::InboxRow& row, std::string& number) {
  if (row.expire_at) number = std::to_string(*row.expire_at);
  if (row.op == "set" && row.expire_at) return {"SET", row.key, row.value, "PXAT", number};
  if (row.op == "set") return {"SET", row.key, row.value};
  if (row.op == "hset") return {"HSET", row.key, row.field, row.value};
  if (row.op == "del") return {"DEL", row.key};
  if (row.op == "hdel") return {"HDEL", row.key, row.field};
  if (row.op == "sadd") return {"SADD", row.key, row.field};
  if (row.op == "srem") return {"SREM", row.key, row.field};
  if (row.op == "expire" && row.expire_at) return {"PEXPIREAT", row.key, number};
  if (row.op == "expire") return {"PERSIST", row.key};
  return {};
}

}  // namespace

// Counts as one more thread, behind the I/O threads.
Inbox::Inbox(Services& services) : services_(services) {
  authenticated = true;
  address = "sql";
  thread = services.stats.threads() - 1;
}

void Inbox::take(const backend::InboxRow& row) {
  if (row.op == "publish") {
    publish_message(row);
  } else {
    std::string number;
    run_command(row, command_of(row, number));
  }
  services_.journal.commit_soon();
}

void Inbox::run_command(const backend::InboxRow& row, const std::vector<std::string_view>& args) {
  Evaluation evaluation(services_, wall_clock_ms());
  const Key key(row.db, row.key);
  evaluation.lock(key);
  if (!services_.site->is_writer()) return;
  if (args.empty()) {
    log_warning("The inbox has an operation that this version does not know",
                {{"op", row.op}, {"id", row.id}});
  } else {
    db.store(row.db, std::memory_order_relaxed);
    std::string out;
    resp::Writer reply(out, 2);
    Call call(services_, *this, *find_command(args[0]), args, reply, evaluation);
    run(call);
    if (out.starts_with('-')) {
      log_warning("What the inbox asks for cannot be done",
                  {{"op", row.op}, {"id", row.id}, {"error", out.substr(1, out.find('\r') - 1)}});
    }
  }
  evaluation.group().stamp_inbox(row.id);
}

void Inbox::publish_message(const backend::InboxRow& row) {
  const std::int64_t now = wall_clock_ms();
  Evaluation evaluation(services_, now);
  // Any shard will do: whoever holds one and is the writer may append.
  evaluation.lock(Key(0, row.key));
  if (!services_.site->is_writer()) return;
  backend::Row message;
  message.kind = backend::RowKind::publish;
  message.key = row.key;
  message.value = row.value;
  message.sent_at = std::min(row.at, now + services_.site->clock_offset_ms());
  evaluation.group().stamp_inbox(row.id);
  if (is_stale(services_, message.sent_at)) return;
  evaluation.group().add(message, now, 0);
  evaluation.group().after_commit(
      [&services = services_, sent_at = message.sent_at, channel = row.key, payload = row.value] {
        if (!is_stale(services, sent_at)) services.pubsub.publish(channel, payload);
      });
}

}  // namespace isthmus

// Does what clients of SQL ask for: the rows of the table `inbox`.
#pragma once

#include "backend/shared_log.hpp"
#include "src/command/client.hpp"
#include "src/command/services.hpp"

namespace isthmus {

/// Evaluates rows of the inbox as commands, on the writer. Each row is deleted in the transaction that
/// commits its effects, so it is done once, whoever the writer is. Used by one thread.
class Inbox final : private Client {
 public:
  explicit Inbox(Services& services);
  /// Does nothing if this server is not the writer: the next one finds the row in the table.
  void take(const backend::InboxRow& row);

 private:
  bool subscribe(ChannelKind, std::string_view) override { return false; }
  bool unsubscribe(ChannelKind, std::string_view) override { return false; }
  void run_command(const backend::InboxRow& row, const std::vector<std::string_view>& args);
  void publish_message(const backend::InboxRow& row);
  Services& services_;
};

}  // namespace isthmus

#include "src/net/client_table.hpp"

#include "src/command/client.hpp"
#include "src/net/io_thread.hpp"

namespace isthmus {

void ClientTable::add(Client& client) {
  const std::lock_guard lock(mutex_);
  client.id = ++last_id_;
  clients_.emplace(client.id, &client);
}

void ClientTable::remove(Client& client) {
  const std::lock_guard lock(mutex_);
  clients_.erase(client.id);
  if (client.peer == nullptr) count_.fetch_sub(1, std::memory_order_relaxed);
}

void ClientTable::for_each(const std::function<void(const Client&)>& visit) const {
  const std::lock_guard lock(mutex_);
  for (const auto& [id, client] : clients_) {
    if (!client->killed.load()) visit(*client);
  }
}

void ClientTable::update(const std::function<void()>& change) {
  const std::lock_guard lock(mutex_);
  change();
}

std::size_t ClientTable::kill(const std::function<bool(const Client&)>& choose, const Client& caller) {
  const std::lock_guard lock(mutex_);
  std::size_t killed = 0;
  for (const auto& [id, client] : clients_) {
    if (client->killed.load() || !choose(*client)) continue;
    ++killed;
    if (client == &caller) {
      client->close_after_reply = true;
    } else {
      client->killed.store(true);
      threads_[client->thread]->sweep_killed();
    }
  }
  return killed;
}

}  // namespace isthmus

// All connections of the server, for CLIENT LIST and CLIENT KILL.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <mutex>
#include <vector>

#include "src/command/services.hpp"

namespace isthmus {

class IoThread;

class ClientTable final : public ClientRegistry {
 public:
  void set_threads(std::vector<IoThread*> threads) { threads_ = std::move(threads); }
  /// Gives the client its id and lists it; it must be removed before it dies.
  void add(Client& client);
  void remove(Client& client);

  void for_each(const std::function<void(const Client&)>& visit) const override;
  void update(const std::function<void()>& change) override;
  std::size_t kill(const std::function<bool(const Client&)>& choose, const Client& caller) override;
  std::size_t count() const override { return count_.load(std::memory_order_relaxed); }
  /// A connection that is listed is another server's, and does not count any more.
  void exempt() { count_.fetch_sub(1, std::memory_order_relaxed); }
  /// Counts a connection that has been accepted and is on its way to its thread.
  void expect() { count_.fetch_add(1, std::memory_order_relaxed); }

 private:
  mutable std::mutex mutex_;
  std::map<std::uint64_t, Client*> clients_;
  std::atomic<std::size_t> count_{0};
  std::uint64_t last_id_ = 0;
  std::vector<IoThread*> threads_;
};

}  // namespace isthmus

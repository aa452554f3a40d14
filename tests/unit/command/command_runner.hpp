// Runs commands through the dispatcher on an empty keyspace in memory, at a time that the test sets. No
// socket, no thread.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "backend/memory_log.hpp"
#include "src/command/dispatcher.hpp"

namespace isthmus {

/// A connection without a socket.
class FakeClient : public Client {
 public:
  FakeClient() { authenticated = true; }
  bool subscribe(ChannelKind kind, std::string_view channel) override {
    return subscriptions_[static_cast<std::size_t>(kind)].emplace(channel).second;
  }
  bool unsubscribe(ChannelKind kind, std::string_view channel) override {
    return subscriptions_[static_cast<std::size_t>(kind)].erase(std::string(channel)) != 0;
  }
};

/// Knows the connections that a test adds. One that is killed is only marked.
class FakeRegistry : public ClientRegistry {
 public:
  void add(Client& client) { clients_.push_back(&client); }
  void for_each(const std::function<void(const Client&)>& visit) const override {
    for (const Client* client : clients_) visit(*client);
  }
  void update(const std::function<void()>& change) override { change(); }
  std::size_t kill(const std::function<bool(const Client&)>& choose, const Client&) override {
    std::size_t killed = 0;
    for (Client* client : clients_) {
      if (!choose(*client)) continue;
      client->killed = true;
      ++killed;
    }
    return killed;
  }
  std::size_t count() const override { return clients_.size(); }

 private:
  std::vector<Client*> clients_;
};

/// Keeps what has been published as "channel payload".
class KeptMessages : public Mailbox {
 public:
  void push(MessageRef message) override { frames.push_back(message->frame); }
  std::vector<std::string> frames;
};

class CommandRunner {
 public:
  static constexpr std::int64_t kStart = 1'700'000'000'000;  // milliseconds since the Unix epoch

  explicit CommandRunner(std::unique_ptr<backend::Log> log = backend::make_memory_log())
      : log_(std::move(log)), journal_(*log_, clock_), stats_(1, command_count()) {
    pubsub_.set_mailboxes({&messages_});
    registry_.add(client_);
  }

  /// The whole reply as it would go over the wire.
  std::string run(std::initializer_list<std::string_view> args) {
    return run(std::vector<std::string_view>(args));
  }
  std::string run(const std::vector<std::string_view>& args) {
    std::string out;
    resp::Writer reply(out, client_.protocol);
    dispatch(services_, client_, args, reply, now_ms_);
    return out;
  }
  /// The same for words that are separated by single spaces.
  std::string operator()(std::string_view line) {
    std::vector<std::string_view> args;
    for (std::size_t begin = 0; begin <= line.size();) {
      const std::size_t end = std::min(line.find(' ', begin), line.size());
      args.push_back(line.substr(begin, end - begin));
      begin = end + 1;
    }
    return run(args);
  }

  void hear_events(std::uint32_t flags) {
    settings_.notify_flags = flags;
    pubsub_.subscribe(ChannelKind::pattern, "__keyevent@*", 0);
  }
  /// The keyevents since the last call, each as "event key", with "@db" behind it unless that is 0.
  std::vector<std::string> events();

  FakeClient& client() { return client_; }
  FakeRegistry& registry() { return registry_; }
  Settings& settings() { return settings_; }
  Services& services() { return services_; }
  int shutdowns() const { return shutdowns_; }
  Keyspace& keyspace() { return keyspace_; }
  HybridClock& clock() { return clock_; }
  Journal& journal() { return journal_; }
  void set_now(std::int64_t now_ms) { now_ms_ = now_ms; }
  void pass(std::int64_t milliseconds) { now_ms_ += milliseconds; }
  std::int64_t now_ms() const { return now_ms_; }

 private:
  Config config_;
  Settings settings_;
  Keyspace keyspace_;
  HybridClock clock_;
  std::unique_ptr<backend::Log> log_;
  Journal journal_;
  PubSub pubsub_;
  FakeRegistry registry_;
  Stats stats_;
  Pause pause_;
  KeptMessages messages_;
  FakeClient client_;
  std::int64_t now_ms_ = kStart;
  int shutdowns_ = 0;
  Services services_{config_,
                     settings_,
                     keyspace_,
                     clock_,
                     journal_,
                     *log_,
                     pubsub_,
                     registry_,
                     stats_,
                     pause_,
                     [this] { ++shutdowns_; },
                     kStart,
                     "",
                     0,
                     nullptr};
};

// A frame is an array of "pmessage", the pattern, the channel and the payload, each a bulk string.
inline std::vector<std::string> CommandRunner::events() {
  std::vector<std::string> found;
  for (const std::string& frame : messages_.frames) {
    const std::size_t channel = frame.find("\r\n__keyevent@", frame.find("__keyevent@*") + 1) + 2;
    const std::size_t channel_end = frame.find("\r\n", channel);
    const std::size_t payload = frame.find("\r\n", channel_end + 2) + 2;
    const std::string_view name = std::string_view(frame).substr(channel, channel_end - channel);
    const std::size_t db_end = name.find("__:");
    const std::string_view db = name.substr(11, db_end - 11);
    std::string text(name.substr(db_end + 3));
    text.append(" ").append(frame, payload, frame.size() - payload - 2);
    if (db != "0") text.append("@").append(db);
    found.push_back(std::move(text));
  }
  messages_.frames.clear();
  return found;
}

}  // namespace isthmus

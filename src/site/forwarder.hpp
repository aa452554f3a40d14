// The way of state-changing commands to the writer of the site: one connection, on a thread of its own.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "src/site/forward_queue.hpp"
#include "src/site/requesters.hpp"
#include "src/site/site.hpp"
#include "src/tls/contexts.hpp"

namespace isthmus {

/// Sends commands to the writer and hands their answers out (ForwardQueue has the rules). The connection is
/// there while another server is the writer; whatever breaks it, it is made again. It speaks TLS if the
/// writer's address begins with kTlsScheme. Thread-safe.
class Forwarder {
 public:
  /// All of them outlive it; `tls` may be null.
  Forwarder(Site& site, const std::atomic<std::int64_t>& commit_timeout_ms, TlsContexts* tls);
  ~Forwarder();
  Forwarder(const Forwarder&) = delete;
  Forwarder& operator=(const Forwarder&) = delete;

  /// Called after each `applied`, by the feed's thread: commands that wait for the feed may go on. Before
  /// `start`.
  void on_applied(std::function<void()> wake) { wake_waiting_ = std::move(wake); }
  void start();
  /// Ends the thread and the connection. Mailboxes get nothing more once the feed has stopped as well.
  void stop();

  // The feed's thread, in the order of what it reads. `applied` also once the state has been read, with the
  // current lease and how far its rows are in that state: for answers that change nothing.
  void writer_is(const backend::LeaseRow& row);
  void answered(std::uint64_t request, std::string_view row_reply);
  void applied(backend::OriginId lease, backend::Seq seq);
  void missed_rows();

  // The I/O threads.
  /// Sends a request; its answer goes to the mailbox, from any thread, perhaps before this returns.
  std::uint64_t submit(const ForwardRequest& request, AnswerMailbox& mailbox);
  /// New requests should fail at once: the writer has not been reached for longer than the commit timeout.
  bool refuses() const { return refuses_.load(std::memory_order_relaxed); }
  /// No more requests should be read until some have been answered.
  bool full() const { return full_.load(std::memory_order_relaxed); }
  std::size_t outstanding() const { return outstanding_.load(std::memory_order_relaxed); }
  bool connected() const { return ready_.load(std::memory_order_relaxed); }

  /// Those for whom this server evaluates commands.
  Requesters& requesters() { return requesters_; }

 private:
  void run();
  std::int64_t now_ms() const;
  template <class Event>
  void handle(Event&& event);
  void wake();
  void look_after_connection();
  void open();
  void finish_connecting();
  void secure();
  void greet();
  void begin_anew();
  void note_ready();
  void fail(const std::string& cause);
  void complain(const std::string& cause);
  void close(std::string_view why);
  void read();
  void write();
  short wanted_events() const;
  void wait();

  Site& site_;
  TlsContexts* tls_contexts_;
  const std::atomic<std::int64_t>& commit_timeout_ms_;
  Requesters requesters_;
  std::function<void()> wake_waiting_;
  std::mutex mutex_;
  ForwardQueue queue_;
  std::atomic<bool> refuses_{false}, full_{false}, ready_{false};
  std::atomic<std::size_t> outstanding_{0};
  std::atomic<bool> woken_{false}, stopping_{false};
  int wake_fd_ = -1;

  // The thread's own.
  int socket_ = -1;
  bool connecting_ = false;
  std::unique_ptr<TlsConnection> tls_;  // null on a connection without TLS
  bool securing_ = false;               // its handshake is under way
  std::string address_;                 // to which it connects
  std::int64_t next_attempt_ms_ = 0, opened_ms_ = 0;
  int failures_ = 0;                  // attempts since it was ready, or since another server is the writer
  std::int64_t trying_since_ms_ = 0;  // when the first of these began
  std::set<std::string> complaints_;  // the causes that have been logged of them
  std::string outgoing_;
  std::size_t sent_ = 0;  // of outgoing_
  resp::ReplyReader reader_;
  std::thread thread_;
};

}  // namespace isthmus

// One I/O thread: its connections, its subscribers, its mailbox.
//
// It waits on an epoll of its own, edge-triggered, and reads into one buffer that all its connections share.
// An idle connection then costs no buffer (ten thousand idle subscribers are the normal case here), and a
// request costs one read and one write and nothing else; a completion-based loop would need a buffer for each
// waiting read and one more call for each request.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include <boost/unordered/unordered_flat_map.hpp>

#include "src/command/services.hpp"
#include "src/net/admission.hpp"
#include "src/net/output.hpp"
#include "src/pubsub/pubsub.hpp"
#include "src/site/forward_queue.hpp"

namespace isthmus {

class Session;
class ClientTable;

/// A connection that was accepted.
struct Arrival {
  int socket = -1;  ///< non-blocking; its owner is who gets this
  std::string address, local_address;
  Admission admission = Admission::everyone;
  TlsContexts* tls = nullptr;  ///< null without TLS
};

class IoThread : public Mailbox, public AnswerMailbox {
 public:
  IoThread(std::size_t index, Services& services, ClientTable& clients);
  ~IoThread() override;

  /// All I/O threads, this one too: where connections may go when this thread has more to do than one core
  /// can. Before `start`.
  void set_threads(std::vector<IoThread*> threads) { all_ = std::move(threads); }
  /// Share of a core that this thread used lately, in percent. Any thread.
  int load_percent() const { return load_percent_.load(std::memory_order_relaxed); }

  void start();
  /// Asks the thread to end after what it is doing; joins it.
  void stop();
  /// Runs the function on this thread, soon. Any thread.
  void post(std::function<void()> task);
  /// Takes over a connection. Any thread.
  void adopt(Arrival arrival);
  /// Mailbox: any thread.
  void push(MessageRef message) override;
  /// AnswerMailbox: any thread.
  void push_answers(std::vector<ForwardAnswer> answers) override;
  /// The feed has got further: what waits for it may go on. Any thread.
  void on_feed();
  /// Replies that wait for a seq in (from, to] get this error, and connections of other servers are closed;
  /// then `done` runs on this thread. Any thread.
  void fail_waiting(backend::Seq from, backend::Seq to, std::string error, std::function<void()> done);
  /// A commit has happened: replies may leave. Any thread.
  void on_commit();
  /// Closes the connections that are marked as killed, soon. Any thread.
  void sweep_killed();
  /// No request is read any more; `on_drained` runs on this thread when what was read is evaluated.
  void drain(std::function<void()> on_drained);
  enum class Closing : std::uint8_t { no, all_but_subscribers, all };
  /// Closes each connection as soon as what is left for it has been sent, at the latest at `deadline_ms` of
  /// the steady clock; then `on_closed` runs on this thread. Any thread.
  void close(Closing which, std::int64_t deadline_ms, std::function<void()> on_closed);

  // For its sessions, on this thread.
  std::size_t index() const { return index_; }
  Services& services() { return services_; }
  ThreadStats& stats() { return services_.stats.thread(index_); }
  std::array<char, 64 * 1024>& read_buffer() { return read_buffer_; }
  /// The wall clock when this round began.
  std::int64_t now_ms() const { return now_ms_; }
  /// The same moment by the steady clock, for how long something takes.
  std::int64_t steady_ms() const { return steady_ms_; }
  bool draining() const { return draining_; }
  /// Hands out what is in the mailbox now, so that it reaches those who are subscribed now, and takes over
  /// the sessions that have come. Locks may be held meanwhile, PubSub's too.
  void deliver_mail();
  bool has_mail() const { return has_work_.load(std::memory_order_relaxed); }
  void add_subscriber(ChannelKind kind, std::string_view name, Session& session);
  void remove_subscriber(ChannelKind kind, std::string_view name, Session& session);
  /// Tries the session again soon: at the next tick, or after the next commit.
  void suspend(Session& session);
  /// Leaves the session alone until its forwarded commands have been answered, or at times until the next
  /// look.
  void park(Session& session);
  /// The same until the next commit.
  void park_until_commit(Session& session);
  void unpark(Session& session);
  /// The answer to this request goes to the session, as long as it is not forgotten.
  void expect_answer(std::uint64_t request, Session& session) { expected_.emplace(request, &session); }
  void forget_answer(std::uint64_t request) { expected_.erase(request); }
  ClientTable& clients() { return clients_; }
  void wait_for_commit(Session& session);
  /// Reads on in the next round: the socket had more than one read took.
  void read_again(Session& session);
  /// Sends the session's output at the end of this round.
  void flush_later(Session& session);
  void remove(Session& session);

 private:
  /// One of the two: a message, or a session that comes from another thread. They share one queue, and so
  /// their order: a message before the session has reached it over there, one behind it is for it here.
  struct Mail {
    MessageRef message;
    std::unique_ptr<Session> arriving;
  };

  void run();
  void round(int timeout_ms);
  void run_tasks();
  void flush_dirty();
  void after_commit();
  void tick();
  void close_sessions(const std::vector<Session*>& all);
  void note_subscriber(ChannelKind kind, std::string_view name, Session& session);
  bool forget_subscriber(ChannelKind kind, std::string_view name, Session& session);
  void measure_load();
  void share_load();
  void move_session(Session& session, IoThread& to);
  void put_in_mail(Mail mail);
  void take_over(std::unique_ptr<Session> session);
  void welcome(std::unique_ptr<Session> session);
  void retry_suspended();
  void retry_parked();
  void take_answers(std::vector<ForwardAnswer>& answers);
  void read_on();
  void commit_what_was_appended();
  void wake();
  int timeout_ms() const;
  void read_clocks();

  const std::size_t index_;
  Services& services_;
  ClientTable& clients_;
  int epoll_fd_ = -1;
  int wake_fd_ = -1;
  std::thread thread_;
  bool running_ = true;
  bool draining_ = false;
  std::int64_t now_ms_ = 0, steady_ms_ = 0;
  std::int64_t next_tick_ms_ = 0;
  Closing closing_ = Closing::no;
  std::int64_t close_deadline_ms_ = 0;
  std::function<void()> on_closed_;
  std::array<char, 64 * 1024> read_buffer_;

  std::unordered_map<Session*, std::unique_ptr<Session>> sessions_;
  std::vector<std::unique_ptr<Session>> removed_;  // until the end of the round: events may still name them
  std::array<StringMap<std::vector<Session*>>, kChannelKinds> subscribers_;
  std::vector<Session*> dirty_, suspended_, gated_, unread_, parked_;
  boost::unordered_flat_map<std::uint64_t, Session*> expected_;  // by number of the forwarded request
  backend::Seq seen_commit_ = 0;
  backend::Seq seen_append_ = 0;

  std::mutex mutex_;
  std::vector<std::function<void()>> tasks_;
  std::vector<Mail> mail_;
  std::atomic<bool> asleep_{false};
  std::atomic<bool> has_gated_{false};
  std::atomic<bool> has_suspended_{false};
  std::atomic<bool> has_work_{false};
  std::vector<Mail> mail_in_hand_;

  std::vector<IoThread*> all_;
  std::atomic<int> load_percent_{0};
  std::int64_t measured_ms_ = 0, measured_cpu_us_ = 0;
  int hot_ticks_ = 0;
  double hot_since_idle_s_ = 0;  // the machine's idle time when it became hot
};

}  // namespace isthmus

#include "src/net/io_thread.hpp"

#include <algorithm>
#include <chrono>
#include <fstream>
#include <system_error>

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "src/net/client_table.hpp"
#include "src/net/session.hpp"

namespace isthmus {
namespace {

constexpr int kMaxEvents = 256;
constexpr std::int64_t kTickMs = 100;
// How often a connection that waits for the end of a pause is looked at.
constexpr int kSuspendedTickMs = 2;

thread_local IoThread* current = nullptr;

// How long the machine's cores have been idle since it started, all together, in seconds (proc(5),
// /proc/stat); 0 if unknown.
double idle_core_seconds() {
  std::ifstream stat("/proc/stat");
  std::string name;
  double user = 0, nice = 0, system = 0, idle = 0;
  if (!(stat >> name >> user >> nice >> system >> idle)) return 0;
  return idle / static_cast<double>(sysconf(_SC_CLK_TCK));
}

}  // namespace

IoThread::IoThread(std::size_t index, Services& services, ClientTable& clients)
    : index_(index), services_(services), clients_(clients) {
  epoll_fd_ = epoll_create1(EPOLL_CLOEXEC);
  wake_fd_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (epoll_fd_ < 0 || wake_fd_ < 0) throw std::system_error(errno, std::generic_category(), "epoll");
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.ptr = nullptr;
  epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, wake_fd_, &event);
}

IoThread::~IoThread() {
  stop();
  ::close(wake_fd_);
  ::close(epoll_fd_);
}

void IoThread::start() {
  thread_ = std::thread([this] { run(); });
}

void IoThread::stop() {
  if (!thread_.joinable()) return;
  post([this] { running_ = false; });
  thread_.join();
}

void IoThread::post(std::function<void()> task) {
  {
    const std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
    has_work_.store(true);
  }
  wake();
}

void IoThread::push(MessageRef message) { put_in_mail({std::move(message), nullptr}); }

void IoThread::put_in_mail(Mail mail) {
  {
    const std::lock_guard lock(mutex_);
    mail_.push_back(std::move(mail));
    has_work_.store(true);
  }
  wake();
}

// The thread itself looks at its mail before it sleeps; another one must be woken if it sleeps already.
void IoThread::wake() {
  if (current == this || !asleep_.load()) return;
  if (!asleep_.exchange(false)) return;
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto written = ::write(wake_fd_, &one, sizeof one);
}

void IoThread::on_commit() {
  if (has_gated_.load()) wake();
}

void IoThread::push_answers(std::vector<ForwardAnswer> answers) {
  post([this, answers = std::move(answers)]() mutable { take_answers(answers); });
}

void IoThread::take_answers(std::vector<ForwardAnswer>& answers) {
  std::vector<Session*> answered;
  for (ForwardAnswer& answer : answers) {
    const auto it = expected_.find(answer.request);
    if (it == expected_.end()) continue;  // its connection is closed
    Session* session = it->second;
    expected_.erase(it);
    session->take_answer(answer);
    if (answered.empty() || answered.back() != session) answered.push_back(session);
  }
  for (Session* session : answered) {
    if (!session->closed()) session->resume_if_answered();
  }
}

void IoThread::on_feed() {
  if (has_suspended_.load()) wake();
}

void IoThread::fail_waiting(backend::Seq from, backend::Seq to, std::string error,
                            std::function<void()> done) {
  post([this, from, to, error = std::move(error), done = std::move(done)] {
    deliver_mail();  // who has left another thread for this one is asked nowhere else
    std::vector<Session*> all;
    all.reserve(sessions_.size());
    for (const auto& [pointer, session] : sessions_) all.push_back(pointer);
    for (Session* session : all) {
      if (!session->closed()) session->fail_waiting(from, to, error);
    }
    done();
  });
}

void IoThread::adopt(Arrival arrival) {
  post([this, arrival = std::move(arrival)] {
    auto session = std::make_unique<Session>(*this, arrival);
    session->address = arrival.address;
    session->local_address = arrival.local_address;
    session->created_ms = steady_ms_;
    session->last_active_ms.store(steady_ms_);
    clients_.add(*session);
    take_over(std::move(session));
  });
}

// Whatever the socket has ready is announced when it is added.
void IoThread::take_over(std::unique_ptr<Session> session) {
  Session& added = *session;
  sessions_.emplace(&added, std::move(session));
  epoll_event event{};
  event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
  event.data.ptr = &added;
  epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, added.socket(), &event);
}

// A session that another thread has given away. One that was killed on its way is closed by a task: that
// takes PubSub's lock, which may be held here.
void IoThread::welcome(std::unique_ptr<Session> session) {
  Session& arrived = *session;
  take_over(std::move(session));
  for (std::size_t i = 0; i < kChannelKinds; ++i) {
    const auto kind = static_cast<ChannelKind>(i);
    for (const std::string& name : arrived.subscriptions(kind)) note_subscriber(kind, name, arrived);
  }
  flush_later(arrived);
  if (arrived.killed.load()) sweep_killed();
}

void IoThread::remove(Session& session) {
  const auto it = sessions_.find(&session);
  if (it == sessions_.end()) return;
  clients_.remove(session);
  if (session.in_gated) std::erase(gated_, &session);
  if (session.in_suspended) std::erase(suspended_, &session);
  if (session.in_unread) std::erase(unread_, &session);
  if (session.in_parked) std::erase(parked_, &session);
  removed_.push_back(std::move(it->second));
  sessions_.erase(it);
}

void IoThread::add_subscriber(ChannelKind kind, std::string_view name, Session& session) {
  note_subscriber(kind, name, session);
  services_.pubsub.subscribe(kind, name, index_);
}

void IoThread::remove_subscriber(ChannelKind kind, std::string_view name, Session& session) {
  if (has_mail() && !session.closed()) deliver_mail();
  if (forget_subscriber(kind, name, session)) services_.pubsub.unsubscribe(kind, name, index_);
}

void IoThread::note_subscriber(ChannelKind kind, std::string_view name, Session& session) {
  auto& names = subscribers_[static_cast<std::size_t>(kind)];
  auto it = names.find(name);
  if (it == names.end()) it = names.emplace(std::string(name), std::vector<Session*>{}).first;
  it->second.push_back(&session);
}

bool IoThread::forget_subscriber(ChannelKind kind, std::string_view name, Session& session) {
  auto& names = subscribers_[static_cast<std::size_t>(kind)];
  const auto it = names.find(name);
  if (it == names.end()) return false;
  const auto place = std::find(it->second.begin(), it->second.end(), &session);
  if (place == it->second.end()) return false;
  *place = it->second.back();
  it->second.pop_back();
  if (it->second.empty()) names.erase(it);
  return true;
}

void IoThread::suspend(Session& session) {
  if (std::exchange(session.in_suspended, true)) return;
  suspended_.push_back(&session);
  has_suspended_.store(true);
}

void IoThread::park(Session& session) {
  if (std::exchange(session.in_parked, true)) return;
  parked_.push_back(&session);
}

void IoThread::park_until_commit(Session& session) {
  park(session);
  has_gated_.store(true);
}

void IoThread::unpark(Session& session) {
  if (std::exchange(session.in_parked, false)) std::erase(parked_, &session);
}

void IoThread::wait_for_commit(Session& session) {
  if (std::exchange(session.in_gated, true)) return;
  gated_.push_back(&session);
  has_gated_.store(true);
}

void IoThread::read_again(Session& session) {
  if (std::exchange(session.in_unread, true)) return;
  unread_.push_back(&session);
}

void IoThread::flush_later(Session& session) {
  if (std::exchange(session.in_dirty, true)) return;
  dirty_.push_back(&session);
}

void IoThread::read_clocks() {
  now_ms_ = wall_clock_ms();
  steady_ms_ = steady_clock_ms();
}

void IoThread::run() {
  current = this;
  read_clocks();
  while (running_) round(timeout_ms());
  deliver_mail();  // who has just come ends as all others
  for (auto& [pointer, session] : sessions_) clients_.remove(*session);
  sessions_.clear();
  removed_.clear();
}

int IoThread::timeout_ms() const {
  if (!unread_.empty()) return 0;
  if (!suspended_.empty()) return kSuspendedTickMs;
  return static_cast<int>(std::clamp<std::int64_t>(next_tick_ms_ - steady_ms_, 0, kTickMs));
}

void IoThread::round(int timeout_ms) {
  std::array<epoll_event, kMaxEvents> events;
  asleep_.store(true);
  // Whoever adds work after this look sees that we are asleep, and wakes us.
  if (has_work_.load() || (has_gated_.load() && services_.journal.committed() != seen_commit_))
    timeout_ms = 0;
  const int count = epoll_wait(epoll_fd_, events.data(), kMaxEvents, timeout_ms);
  asleep_.store(false);
  read_clocks();
  for (int i = 0; i < count; ++i) {
    auto* session = static_cast<Session*>(events[static_cast<std::size_t>(i)].data.ptr);
    if (session == nullptr) {
      std::uint64_t ignored;
      [[maybe_unused]] const auto bytes = ::read(wake_fd_, &ignored, sizeof ignored);
    } else if (!session->closed()) {
      session->on_events(events[static_cast<std::size_t>(i)].events);
    }
  }
  after_commit();
  read_on();
  if (has_work_.load()) {
    run_tasks();
    deliver_mail();
  }
  retry_suspended();
  if (steady_ms_ >= next_tick_ms_) tick();
  commit_what_was_appended();
  flush_dirty();
  removed_.clear();
}

void IoThread::commit_what_was_appended() {
  const backend::Seq appended = services_.journal.appended();
  if (appended == seen_append_) return;
  seen_append_ = appended;
  services_.journal.commit_soon();
}

void IoThread::run_tasks() {
  std::vector<std::function<void()>> tasks;
  {
    const std::lock_guard lock(mutex_);
    tasks.swap(tasks_);
    has_work_.store(!mail_.empty());
  }
  for (const auto& task : tasks) task();
}

void IoThread::deliver_mail() {
  {
    const std::lock_guard lock(mutex_);
    mail_in_hand_.swap(mail_);
    has_work_.store(!tasks_.empty());
  }
  for (Mail& mail : mail_in_hand_) {
    if (mail.arriving != nullptr) {
      welcome(std::move(mail.arriving));
      continue;
    }
    const auto& names = subscribers_[static_cast<std::size_t>(mail.message->kind)];
    const auto it = names.find(mail.message->target);
    if (it == names.end()) continue;
    for (Session* session : it->second) session->deliver(mail.message);
  }
  mail_in_hand_.clear();
}

void IoThread::flush_dirty() {
  // A session that closes hands out the mail first, which makes others dirty.
  std::vector<Session*> dirty;
  while (!dirty_.empty()) {
    dirty.swap(dirty_);
    for (Session* session : dirty) {
      session->in_dirty = false;
      if (!session->closed()) session->flush();
      if (!session->closed()) session->check_limits();
    }
    dirty.clear();
  }
}

void IoThread::after_commit() {
  const backend::Seq committed = services_.journal.committed();
  if (committed == seen_commit_) return;
  seen_commit_ = committed;
  std::vector<Session*> waiting;
  waiting.swap(gated_);
  has_gated_.store(false);
  for (Session* session : waiting) {
    session->in_gated = false;
    if (!session->closed()) session->flush();
  }
  retry_parked();
}

void IoThread::retry_parked() {
  if (parked_.empty()) return;
  std::vector<Session*> waiting;
  waiting.swap(parked_);
  for (Session* session : waiting) {
    session->in_parked = false;
    if (!session->closed()) session->resume();
  }
}

void IoThread::retry_suspended() {
  if (suspended_.empty()) return;
  std::vector<Session*> waiting;
  waiting.swap(suspended_);
  has_suspended_.store(false);
  for (Session* session : waiting) {
    session->in_suspended = false;
    if (!session->closed()) session->resume();
  }
}

void IoThread::read_on() {
  if (unread_.empty()) return;
  std::vector<Session*> waiting;
  waiting.swap(unread_);
  for (Session* session : waiting) {
    session->in_unread = false;
    if (!session->closed()) session->resume();
  }
}

void IoThread::tick() {
  next_tick_ms_ = steady_ms_ + kTickMs;
  retry_parked();
  measure_load();
  share_load();
  const std::int64_t commit_timeout = services_.settings.commit_timeout_ms.load(std::memory_order_relaxed);
  const std::vector<Session*> waiting = gated_;
  for (Session* session : waiting) {
    if (!session->closed()) session->check_commit_timeout(commit_timeout);
  }
  std::vector<Session*> all;
  all.reserve(sessions_.size());
  for (const auto& [pointer, session] : sessions_) all.push_back(pointer);
  for (Session* session : all) {
    if (!session->closed()) session->check_limits();
  }
  if (on_closed_ != nullptr) close_sessions(all);
}

void IoThread::close_sessions(const std::vector<Session*>& all) {
  bool output_left = false;
  for (Session* session : all) {
    if (session->closed()) continue;
    if (closing_ == Closing::all_but_subscribers && session->in_subscribed_mode()) continue;
    if (session->has_output() && steady_ms_ < close_deadline_ms_) {
      output_left = true;
    } else {
      session->close("the server shuts down");
    }
  }
  if (!output_left) std::exchange(on_closed_, nullptr)();
}

// CPU time and not time awake: where all cores are busy, another thread would not help.
void IoThread::measure_load() {
  timespec cpu{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu);
  const std::int64_t cpu_us = cpu.tv_sec * 1'000'000 + cpu.tv_nsec / 1000;
  const std::int64_t elapsed_ms = steady_ms_ - measured_ms_;
  if (measured_ms_ != 0 && elapsed_ms > 0) {
    load_percent_.store(static_cast<int>((cpu_us - measured_cpu_us_) / 10 / elapsed_ms),
                        std::memory_order_relaxed);
  }
  measured_ms_ = steady_ms_;
  measured_cpu_us_ = cpu_us;
}

// Connections begin on as few threads as can serve them: a busy thread does more for each wake-up, and a
// message to a subscriber of the same thread wakes up nobody. Only a thread that fills its core gives half of
// them away.
void IoThread::share_load() {
  constexpr int kHotPercent = 85, kCoolPercent = 50, kHotTicks = 4;
  constexpr std::size_t kMostAtOnce = 512;
  // A second thread helps only where part of a core is free; else it takes the core from who sends the
  // requests.
  constexpr double kFreeCores = 0.3;
  hot_ticks_ = load_percent() >= kHotPercent ? hot_ticks_ + 1 : 0;
  if (hot_ticks_ == 1) hot_since_idle_s_ = idle_core_seconds();
  if (hot_ticks_ < kHotTicks || sessions_.size() < 2 || draining_) return;
  const double elapsed_s = static_cast<double>((hot_ticks_ - 1) * kTickMs) / 1000;
  hot_ticks_ = 0;
  if (idle_core_seconds() - hot_since_idle_s_ < kFreeCores * elapsed_s) return;
  IoThread* coolest = this;
  for (IoThread* thread : all_) {
    if (thread->load_percent() < coolest->load_percent()) coolest = thread;
  }
  if (coolest == this || coolest->load_percent() > kCoolPercent) return;
  std::vector<Session*> chosen;
  for (const auto& [pointer, session] : sessions_) {
    if (chosen.size() >= std::min(sessions_.size() / 2, kMostAtOnce)) break;
    if (session->can_move()) chosen.push_back(pointer);
  }
  for (Session* session : chosen) {
    if (session->can_move()) move_session(*session, *coolest);
  }
}

void IoThread::move_session(Session& session, IoThread& to) {
  std::vector<PubSub::Name> names;
  for (std::size_t i = 0; i < kChannelKinds; ++i) {
    const auto kind = static_cast<ChannelKind>(i);
    for (const std::string& name : session.subscriptions(kind)) names.push_back({kind, name});
  }
  services_.pubsub.move(names, index_, to.index(), [&] {
    deliver_mail();  // what was published before reaches it here
    for (const PubSub::Name& name : names) forget_subscriber(name.kind, name.text, session);
    if (session.in_dirty) {
      session.in_dirty = false;
      std::erase(dirty_, &session);
    }
    epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, session.socket(), nullptr);
    const auto it = sessions_.find(&session);
    std::unique_ptr<Session> moving = std::move(it->second);
    sessions_.erase(it);
    session.move_to(to);
    services_.stats.moved_connections.fetch_add(1, std::memory_order_relaxed);
    to.put_in_mail({MessageRef(), std::move(moving)});  // before what will be published next
  });
}

void IoThread::sweep_killed() {
  post([this] {
    std::vector<Session*> killed;
    for (const auto& [pointer, session] : sessions_) {
      if (session->killed.load()) killed.push_back(pointer);
    }
    for (Session* session : killed) session->close("CLIENT KILL");
  });
}

void IoThread::drain(std::function<void()> on_drained) {
  post([this, done = std::move(on_drained)] {
    draining_ = true;
    done();
  });
}

void IoThread::close(Closing which, std::int64_t deadline_ms, std::function<void()> on_closed) {
  post([this, which, deadline_ms, done = std::move(on_closed)]() mutable {
    closing_ = which;
    close_deadline_ms_ = deadline_ms;
    on_closed_ = std::move(done);
    next_tick_ms_ = 0;
    for (const auto& [pointer, session] : sessions_) flush_later(*pointer);
  });
}

}  // namespace isthmus

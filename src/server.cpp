#include "src/server.hpp"

#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdlib>
#include <latch>
#include <optional>
#include <random>
#include <thread>

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>

#include "backend/log.hpp"
#include "src/command/call.hpp"
#include "src/command/config_parameters.hpp"
#include "src/command/expirer.hpp"
#include "src/command/metrics.hpp"
#include "src/membership.hpp"
#include "src/net/client_table.hpp"
#include "src/net/http_server.hpp"
#include "src/net/io_thread.hpp"
#include "src/net/listener.hpp"
#include "src/observe/logging.hpp"
#include "src/site/checkpointer.hpp"
#include "src/site/journal.hpp"
#include "src/site/loader.hpp"
#include "src/tls/contexts.hpp"

namespace isthmus {
namespace {

using boost::asio::steady_timer;
using boost::system::error_code;
using std::chrono::milliseconds;

// An orderly end takes 10 s at most: so long for the backend, and so long for clients that read slowly, and
// for subscribers that do.
constexpr milliseconds kCommitPatience{6000};
constexpr std::int64_t kClosePatienceMs = 2000;

std::string random_hex(std::size_t digits) {
  std::random_device device;
  std::string text;
  constexpr char kHex[] = "0123456789abcdef";
  while (text.size() < digits) text.push_back(kHex[device() % 16]);
  return text;
}

// Every client is a file descriptor, and the usual limit is 1,024. As Redis does: raise it, or serve fewer
// clients and say so.
void fit_file_limit(Settings& settings) {
  const std::uint32_t wanted = settings.maxclients.load();
  settings.maxclients = clients_within_file_limit(wanted);
  if (settings.maxclients.load() >= wanted) return;
  log_warning(
      "The limit of open files allows fewer clients than maxclients; raise it (ulimit -n, LimitNOFILE)",
      {{"wanted", wanted}, {"maxclients", settings.maxclients.load()}});
}

// Until the server can end in order, SIGTERM and SIGINT end it at once. That is safe: what it does to a
// database meanwhile is done whole or not at all, whenever it is killed. And it takes a handler: process 1 of
// a container has no signals without one.
class OpeningGuard {
 public:
  OpeningGuard() {
    signals_.async_wait([](const error_code& error, int signal) {
      if (error) return;
      log_info("Ended before the server was ready", {{"signal", signal}});
      std::_Exit(0);
    });
    thread_ = std::thread([this] { context_.run(); });
  }
  ~OpeningGuard() {
    context_.stop();
    thread_.join();
  }
  OpeningGuard(const OpeningGuard&) = delete;
  OpeningGuard& operator=(const OpeningGuard&) = delete;

 private:
  boost::asio::io_context context_{1};
  boost::asio::signal_set signals_{context_, SIGTERM, SIGINT};
  std::thread thread_;
};

void copy_settings(const Config& config, Settings& settings) {
  settings.notify_flags = parse_event_flags(config.notify_keyspace_events).value_or(0);
  settings.maxmemory_bytes = config.maxmemory_bytes;
  settings.maxclients = config.maxclients;
  settings.protected_mode = config.protected_mode;
  settings.timeout_s = config.timeout_s;
  settings.tcp_keepalive_s = config.tcp_keepalive_s;
  settings.proto_max_bulk_bytes = static_cast<std::int64_t>(config.proto_max_bulk_bytes);
  settings.slowlog_threshold_us = config.slowlog_log_slower_than_us;
  settings.slowlog_max_len = config.slowlog_max_len;
  settings.commit_timeout_ms = config.commit_timeout_ms;
  const auto copy = [](const OutputBufferLimit& from, Settings::OutputLimit& to) {
    to.hard_bytes = from.hard_bytes;
    to.soft_bytes = from.soft_bytes;
    to.soft_seconds = from.soft_seconds;
  };
  copy(config.client_output_buffer_limits.normal, settings.normal_output);
  copy(config.client_output_buffer_limits.pubsub, settings.pubsub_output);
  copy(config.client_output_buffer_limits.replica, settings.replica_output);
  settings.set_password(config.requirepass);
}

}  // namespace

class Server::Parts {
 public:
  explicit Parts(const Config& given)
      : config_(given),
        signals_(context_, SIGTERM, SIGINT),
        hangups_(context_, SIGHUP),
        opening_(std::in_place),
        tls_(config_.tls.wanted() ? std::make_unique<TlsContexts>(config_.tls) : nullptr),
        listener_(listen(config_.port, nullptr)),
        tls_listener_(listen(config_.tls.port, tls_.get())),
        http_(make_http()),
        log_(backend::open_log(config_.backend, {std::chrono::seconds(config_.log_retention_s)})),
        site_(make_site()),
        journal_(*log_, clock_, site_.get()),
        checkpointer_(keyspace_, *log_, {}),
        stats_(config_.threads + 1, command_count()),
        services_{config_,
                  settings_,
                  keyspace_,
                  clock_,
                  journal_,
                  *log_,
                  pubsub_,
                  clients_,
                  stats_,
                  pause_,
                  [this] { boost::asio::post(context_, [this] { context_.stop(); }); },
                  wall_clock_ms(),
                  random_hex(40),
                  port(),
                  log_->durable() ? &checkpointer_ : nullptr,
                  nullptr,
                  nullptr,
                  tls_.get(),
                  tls_port()},
        expirer_(services_),
        sampler_(context_),
        tls_watch_(context_) {
    copy_settings(config_, settings_);
    fit_file_limit(settings_);
    keyspace_.set_site(log_->site());
    keyspace_.set_max_clock_skew(config_.max_clock_skew_ms);
    clock_.set_max_skew(config_.max_clock_skew_ms);
    load_state();
    for (std::size_t i = 0; i < config_.threads; ++i) {
      threads_.push_back(std::make_unique<IoThread>(i, services_, clients_));
    }
    std::vector<IoThread*> threads;
    for (const auto& thread : threads_) threads.push_back(thread.get());
    clients_.set_threads(threads);
    for (IoThread* thread : threads) thread->set_threads(threads);
    pubsub_.set_mailboxes({threads.begin(), threads.end()});
  }

  bool run() {
    opening_.reset();
    std::vector<IoThread*> threads;
    for (const auto& thread : threads_) threads.push_back(thread.get());
    for (const auto& thread : threads_) thread->start();
    journal_.start(log_->durable() ? &checkpointer_ : nullptr,
                   member_ == nullptr ? nullptr : &member_->lease(), journal_hooks());
    if (member_ != nullptr) member_->start();
    expirer_.start();
    signals_.async_wait([this](const error_code& error, int signal) {
      if (error) return;
      log_info("Shutting down", {{"signal", signal}});
      context_.stop();
    });
    sample();
    watch_tls();
    for (Listener* listener : listeners()) listener->accept_for(services_, clients_, threads);
    phase_.store(Phase::serving);
    if (tls_listener_ != nullptr) log_info("TLS connections are taken", {{"tls_port", tls_port()}});
    log_info("Ready to accept connections",
             {{"port", listener_ == nullptr ? LogValue("off") : LogValue(port())},
              {"backend", log_->description()},
              {"threads", config_.threads},
              {"version", ISTHMUS_VERSION}});
    context_.run();
    return stop();
  }

  std::uint16_t port() const { return listener_ == nullptr ? 0 : listener_->port(); }
  std::uint16_t tls_port() const { return tls_listener_ == nullptr ? 0 : tls_listener_->port(); }

 private:
  std::unique_ptr<Listener> listen(std::optional<std::uint16_t> port, TlsContexts* tls) {
    if (!port) return nullptr;
    return std::make_unique<Listener>(context_, config_.bind, *port, static_cast<int>(config_.tcp_backlog),
                                      tls);
  }

  std::vector<Listener*> listeners() {
    std::vector<Listener*> all;
    for (Listener* listener : {listener_.get(), tls_listener_.get()}) {
      if (listener != nullptr) all.push_back(listener);
    }
    return all;
  }

  std::unique_ptr<HttpServer> make_http() {
    if (!config_.http_port) return nullptr;
    const auto& addresses = config_.http_bind.empty() ? config_.bind : config_.http_bind;
    auto http = std::make_unique<HttpServer>(addresses, *config_.http_port,
                                             [this](const std::string& path) { return answer_http(path); });
    log_info("Probes and metrics are served", {{"http_port", http->port()}});
    return http;
  }

  // On the HTTP server's thread. The other parts are there while the server serves or drains.
  HttpReply answer_http(const std::string& path) {
    const Phase phase = phase_.load();
    if (path == "/healthz") return {.body = "ok\n"};
    if (path == "/readyz") {
      const std::string why = phase == Phase::starting   ? "the state is being loaded"
                              : phase == Phase::draining ? "the server is ending"
                                                         : not_ready_because(services_);
      return why.empty() ? HttpReply{.body = "ready\n"} : HttpReply{.status = 503, .body = why + "\n"};
    }
    if (path == "/metrics") {
      if (phase == Phase::starting) return {.status = 503, .body = "the state is being loaded\n"};
      return {.type = "text/plain; version=0.0.4; charset=utf-8",
              .body = metrics_text(services_, wall_clock_ms())};
    }
    return {.status = 404, .body = "there are /healthz, /readyz and /metrics\n"};
  }

  // Where other servers find this one: as it was told, or where it listens, which is no wildcard then.
  std::unique_ptr<Site> make_site() {
    backend::SharedLog* shared = log_->shared();
    if (shared == nullptr) return nullptr;
    const bool tls = config_.tls.replication;
    std::string address = config_.advertise;
    if (address.empty()) address = config_.bind.front() + ":" + std::to_string(tls ? tls_port() : port());
    if (tls) address.insert(0, kTlsScheme);
    return std::make_unique<Site>(*shared, address, ISTHMUS_VERSION);
  }

  void load_state() {
    if (site_ == nullptr) {
      load(*log_, keyspace_, clock_, checkpointer_);
      return;
    }
    member_ = std::make_unique<Membership>(*site_, services_, checkpointer_, [this] {
      for (const auto& thread : threads_) thread->on_feed();
    });
    member_->load();
  }

  Journal::Hooks journal_hooks() {
    Journal::Hooks hooks{.after_commit =
                             [this] {
                               for (const auto& thread : threads_) thread->on_commit();
                             },
                         .fail_waiting =
                             [this](backend::Seq from, backend::Seq to, const std::string& error) {
                               std::latch failed(static_cast<std::ptrdiff_t>(threads_.size()));
                               for (const auto& thread : threads_) {
                                 thread->fail_waiting(from, to, error, [&] { failed.count_down(); });
                               }
                               failed.wait();
                             }};
    if (member_ != nullptr) member_->add_hooks(hooks);
    return hooks;
  }

  // New certificates are taken when their files change, and at once on SIGHUP, which without TLS means
  // nothing.
  void watch_tls() {
    await_hangup();
    if (tls_ != nullptr) look_at_tls_files();
  }

  void await_hangup() {
    hangups_.async_wait([this](const error_code& error, int /*signal*/) {
      if (error) return;
      if (tls_ != nullptr) tls_->reload();
      await_hangup();
    });
  }

  void look_at_tls_files() {
    tls_watch_.expires_after(std::chrono::seconds(1));
    tls_watch_.async_wait([this](const error_code& error) {
      if (error) return;
      tls_->look_at_files();
      look_at_tls_files();
    });
  }

  void sample() {
    stats_.sample(steady_clock_ms());
    const std::uint64_t used = keyspace_.used_bytes();
    if (used > stats_.peak_memory_bytes.load()) stats_.peak_memory_bytes.store(used);
    sampler_.expires_after(milliseconds(100));
    sampler_.async_wait([this](const error_code& error) {
      if (!error) sample();
    });
  }

  void close(IoThread::Closing which) {
    std::latch closed(static_cast<std::ptrdiff_t>(threads_.size()));
    const std::int64_t deadline = steady_clock_ms() + kClosePatienceMs;
    for (const auto& thread : threads_) thread->close(which, deadline, [&] { closed.count_down(); });
    closed.wait();
  }

  bool stop() {
    phase_.store(Phase::draining);
    for (Listener* listener : listeners()) listener->close();
    expirer_.stop();
    if (member_ != nullptr) member_->prepare_stop();
    std::latch drained(static_cast<std::ptrdiff_t>(threads_.size()));
    for (const auto& thread : threads_) thread->drain([&] { drained.count_down(); });
    drained.wait();
    const bool all_committed = journal_.stop(kCommitPatience);
    close(IoThread::Closing::all_but_subscribers);
    close(IoThread::Closing::all);
    for (const auto& thread : threads_) thread->stop();
    http_.reset();
    if (member_ != nullptr) member_->stop();
    if (all_committed) {
      log_info("Everything is in the log; good-bye");
    } else {
      log_error(
          "The backend did not take the last writes; their clients have not been told that they succeeded",
          {{"cause", journal_.unavailable_reason()}});
    }
    return all_committed;
  }

  const Config config_;
  boost::asio::io_context context_{1};
  // Before whatever takes time. A signal that comes before somebody waits for it is kept until then.
  boost::asio::signal_set signals_, hangups_;
  std::optional<OpeningGuard> opening_;  // until there are threads that must end in order
  std::unique_ptr<TlsContexts> tls_;     // null without its options
  // Before the log: a taken port must not touch a database. Null where there is no such port.
  std::unique_ptr<Listener> listener_, tls_listener_;
  enum class Phase : std::uint8_t { starting, serving, draining };
  std::atomic<Phase> phase_{Phase::starting};
  std::unique_ptr<HttpServer> http_;  // null unless there is a port for it
  std::unique_ptr<backend::Log> log_;
  HybridClock clock_;
  std::unique_ptr<Site> site_;  // null unless the log is shared
  Settings settings_;
  Keyspace keyspace_;
  PubSub pubsub_;
  ClientTable clients_;
  Pause pause_;
  Journal journal_;
  Checkpointer checkpointer_;
  Stats stats_;
  Services services_;
  std::unique_ptr<Membership> member_;  // null unless the log is shared
  Expirer expirer_;
  std::vector<std::unique_ptr<IoThread>> threads_;
  steady_timer sampler_, tls_watch_;
};

Server::Server(const Config& config) : parts_(std::make_unique<Parts>(config)) {}
Server::~Server() = default;
bool Server::run() { return parts_->run(); }
std::uint16_t Server::port() const { return parts_->port(); }
std::uint16_t Server::tls_port() const { return parts_->tls_port(); }

}  // namespace isthmus

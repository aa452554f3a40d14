#include "src/site/forwarder.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <system_error>

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "src/keyspace/clock.hpp"
#include "src/observe/logging.hpp"

namespace isthmus {
namespace {

// Connections that fail are tried again after these times, the last one from then on.
constexpr std::array<std::int64_t, 3> kRetryMs{50, 100, 200};
// A writer that takes the connection and does not answer its handshake for so long is stopped or too slow.
constexpr std::int64_t kHandshakeMs = 3000;
// How often time-outs are looked at.
constexpr int kTickMs = 50;
// A host that vanishes is noticed in about so long (tcp(7), TCP_USER_TIMEOUT).
constexpr int kVanishedMs = 3000;
// A writer that hands the lease over is refused or gone for less than this, which is nothing to report.
constexpr std::int64_t kTakeOverMs = 1000;
// A peer chooses the words of its refusal, so that there may be any number of causes.
constexpr std::size_t kMaxComplaints = 8;

// The limits of one answer: as large as a bulk string may be, and its frame.
resp::ReplyLimits answer_limits() {
  resp::ReplyLimits limits;
  limits.max_bulk = (std::size_t{512} << 20) + (64 << 10);
  return limits;
}

void set_options(int socket) {
  const int on = 1, idle_s = 1, interval_s = 1, probes = 2;
  ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  ::setsockopt(socket, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  ::setsockopt(socket, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
  ::setsockopt(socket, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s);
  ::setsockopt(socket, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
  ::setsockopt(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, &kVanishedMs, sizeof kVanishedMs);
}

struct Address {
  bool tls = false;
  std::string host, port;
};

// Reads "host:port" or "[host]:port", perhaps behind kTlsScheme.
Address read_address(std::string_view text) {
  Address address;
  address.tls = text.starts_with(kTlsScheme);
  if (address.tls) text.remove_prefix(kTlsScheme.size());
  const std::size_t colon = std::min(text.rfind(':'), text.size());
  std::string_view host = text.substr(0, colon);
  if (host.size() > 2 && host.front() == '[') host = host.substr(1, host.size() - 2);
  address.host = host;
  address.port = text.substr(std::min(colon + 1, text.size()));
  return address;
}

std::string error_text(int error) { return std::generic_category().message(error); }

// A socket that connects there; -1 if that cannot even begin, and then `why`.
int begin_connect(const Address& address, std::string& why) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int error = ::getaddrinfo(address.host.c_str(), address.port.c_str(), &hints, &found);
      error != 0) {
    why = "its host cannot be resolved: " +
          (error == EAI_SYSTEM ? error_text(errno) : std::string(::gai_strerror(error)));
    return -1;
  }
  const int socket = ::socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const bool begun =
      socket >= 0 && (::connect(socket, found->ai_addr, found->ai_addrlen) == 0 || errno == EINPROGRESS);
  if (!begun) why = error_text(errno);
  ::freeaddrinfo(found);
  if (begun) {
    set_options(socket);
    return socket;
  }
  if (socket >= 0) ::close(socket);
  return -1;
}

}  // namespace

Forwarder::Forwarder(Site& site, const std::atomic<std::int64_t>& commit_timeout_ms, TlsContexts* tls)
    : site_(site),
      tls_contexts_(tls),
      commit_timeout_ms_(commit_timeout_ms),
      queue_(site.server(), steady_clock_ms()) {
  wake_fd_ = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (wake_fd_ < 0) throw std::system_error(errno, std::generic_category(), "eventfd");
}

Forwarder::~Forwarder() {
  stop();
  ::close(wake_fd_);
}

void Forwarder::start() {
  thread_ = std::thread([this] { run(); });
}

void Forwarder::stop() {
  if (!thread_.joinable()) return;
  stopping_.store(true);
  wake();
  thread_.join();
}

std::int64_t Forwarder::now_ms() const { return steady_clock_ms(); }

void Forwarder::wake() {
  if (woken_.exchange(true)) return;
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto written = ::write(wake_fd_, &one, sizeof one);
}

// Every event passes here: what it sets free goes to the mailboxes, without the lock.
template <class Event>
void Forwarder::handle(Event&& event) {
  std::vector<ForwardQueue::Delivery> released;
  bool work = false;
  {
    const std::lock_guard lock(mutex_);
    event(queue_);
    released = queue_.take_released();
    refuses_.store(queue_.refuses(), std::memory_order_relaxed);
    full_.store(queue_.full(), std::memory_order_relaxed);
    ready_.store(queue_.ready(), std::memory_order_relaxed);
    outstanding_.store(queue_.outstanding(), std::memory_order_relaxed);
    site_.stats().forward_retries.store(queue_.retries(), std::memory_order_relaxed);
    work = queue_.has_output() || queue_.must_drop();
  }
  for (ForwardQueue::Delivery& delivery : released) {
    delivery.mailbox->push_answers(std::move(delivery.answers));
  }
  if (work) wake();
}

void Forwarder::writer_is(const backend::LeaseRow& row) {
  handle([&](ForwardQueue& queue) { queue.writer_is(row); });
  wake();
}

void Forwarder::answered(std::uint64_t request, std::string_view row_reply) {
  handle([&](ForwardQueue& queue) { queue.answered(request, row_reply); });
}

void Forwarder::applied(backend::OriginId lease, backend::Seq seq) {
  handle([&](ForwardQueue& queue) { queue.applied(lease, seq); });
  if (wake_waiting_) wake_waiting_();
}

void Forwarder::missed_rows() {
  handle([](ForwardQueue& queue) { queue.missed_rows(); });
}

std::uint64_t Forwarder::submit(const ForwardRequest& request, AnswerMailbox& mailbox) {
  std::uint64_t number = 0;
  handle([&](ForwardQueue& queue) { number = queue.submit(request, mailbox, now_ms()); });
  site_.stats().forwarded_commands.fetch_add(1, std::memory_order_relaxed);
  return number;
}

void Forwarder::run() {
  while (!stopping_.load()) {
    handle([&](ForwardQueue& queue) { queue.tick(now_ms(), commit_timeout_ms_.load()); });
    look_after_connection();
    wait();
  }
  close("the server stops");
}

void Forwarder::look_after_connection() {
  bool wanted = false, drop = false, greeting = false;
  std::string address;
  {
    const std::lock_guard lock(mutex_);
    wanted = queue_.wants_connection();
    address = queue_.address();
    drop = queue_.must_drop();
    greeting = queue_.greeting();
  }
  const std::int64_t now = now_ms();
  if (socket_ >= 0) {
    if (drop || !wanted || ((connecting_ || securing_) && address != address_)) {
      begin_anew();
      close(wanted ? "another server is the writer" : "this server is the writer");
    } else if ((connecting_ || securing_ || greeting) && now - opened_ms_ > kHandshakeMs) {
      fail(connecting_ ? "the connection is not answered" : "no answer to the handshake");
    }
  }
  if (ready_.load() && failures_ != 0) note_ready();
  if (socket_ < 0 && wanted && now >= next_attempt_ms_) {
    if (address != address_) begin_anew();
    address_ = address;
    open();
  }
}

// Somebody else may be reached at once, and what was said of the one before says nothing of them.
void Forwarder::begin_anew() {
  failures_ = 0;
  next_attempt_ms_ = 0;
  complaints_.clear();
}

void Forwarder::note_ready() {
  failures_ = 0;
  complaints_.clear();
  log_info("Connected to the writer of the site", {{"writer", address_}});
}

void Forwarder::open() {
  const std::int64_t now = now_ms();
  opened_ms_ = now;
  if (failures_ == 0) trying_since_ms_ = now;
  next_attempt_ms_ = now + kRetryMs[std::min<std::size_t>(static_cast<std::size_t>(failures_), 2)];
  ++failures_;
  std::string why;
  socket_ = begin_connect(read_address(address_), why);
  connecting_ = socket_ >= 0;
  if (!connecting_) complain(why);
}

void Forwarder::finish_connecting() {
  int error = 0;
  socklen_t size = sizeof error;
  ::getsockopt(socket_, SOL_SOCKET, SO_ERROR, &error, &size);
  if (error != 0) {
    fail(error_text(error));
    return;
  }
  connecting_ = false;
  const Address address = read_address(address_);
  if (!address.tls) {
    greet();
    return;
  }
  std::string why = "it is reached by TLS, and this server has none of the options for it";
  if (tls_contexts_ != nullptr) tls_ = tls_contexts_->connect(socket_, address.host, why);
  if (tls_ == nullptr) {
    fail(why);
    return;
  }
  securing_ = true;
  secure();
}

// Goes on with the handshake of TLS; then that of the servers follows.
void Forwarder::secure() {
  if (tls_->shake_hands() == 1) {
    securing_ = false;
    greet();
  } else if (errno != EAGAIN) {
    fail(tls_->error().empty() ? "closed by the writer" : tls_->error());
  }
}

// The connection cannot be made, or breaks.
void Forwarder::fail(const std::string& cause) {
  if (!ready_.load()) complain(cause);
  close(cause);
}

// Once for each cause: it is tried again several times a second.
void Forwarder::complain(const std::string& cause) {
  if (now_ms() - trying_since_ms_ < kTakeOverMs || complaints_.size() >= kMaxComplaints) return;
  if (!complaints_.insert(cause).second) return;
  log_warning(address_.starts_with(kTlsScheme) ? "No TLS connection to the writer of the site"
                                               : "No connection to the writer of the site",
              {{"writer", address_}, {"cause", cause}});
}

void Forwarder::greet() {
  reader_ = resp::ReplyReader(answer_limits());
  const std::string secret = site_.log().secret();
  handle([&](ForwardQueue& queue) { queue.connected(address_, secret); });
}

void Forwarder::close(std::string_view why) {
  if (socket_ < 0) return;
  if (ready_.load() && !stopping_.load()) {
    log_info("The connection to the writer ended", {{"writer", address_}, {"why", why}});
  }
  if (tls_ != nullptr) tls_->finish();
  tls_.reset();
  ::close(socket_);
  socket_ = -1;
  connecting_ = securing_ = false;
  outgoing_.clear();
  sent_ = 0;
  handle([&](ForwardQueue& queue) { queue.lost(now_ms()); });
}

void Forwarder::read() {
  std::array<char, 64 * 1024> buffer;
  for (;;) {
    const ssize_t size = tls_ == nullptr ? ::recv(socket_, buffer.data(), buffer.size(), 0)
                                         : tls_->receive(buffer.data(), buffer.size());
    if (size < 0 && errno == EINTR) continue;
    if (size < 0 && errno == EAGAIN) return;
    if (size <= 0) {
      // In TLS 1.3 the writer's verdict on our certificate comes after the handshake.
      const bool by_tls = size < 0 && tls_ != nullptr && !tls_->error().empty();
      fail(by_tls ? tls_->error() : size == 0 ? "closed by the writer" : error_text(errno));
      return;
    }
    reader_.feed({buffer.data(), static_cast<std::size_t>(size)});
    std::vector<resp::Value> replies;
    resp::Value value;
    resp::ReplyReader::Status status = resp::ReplyReader::Status::need_more;
    while ((status = reader_.next(value)) == resp::ReplyReader::Status::value) {
      replies.push_back(std::move(value));
    }
    bool keep = status != resp::ReplyReader::Status::error;
    std::string refusal;
    handle([&](ForwardQueue& queue) {
      for (resp::Value& reply : replies) {
        if (!queue.received(reply)) {
          keep = false;
          refusal = reply.text;
          break;
        }
      }
    });
    if (!keep) {
      fail(refusal.empty() ? "it does not answer as the writer of this site" : refusal);
      return;
    }
    if (static_cast<std::size_t>(size) < buffer.size() && !(tls_ != nullptr && tls_->has_more())) return;
  }
}

void Forwarder::write() {
  for (;;) {
    if (sent_ == outgoing_.size()) {
      const std::lock_guard lock(mutex_);
      outgoing_ = queue_.take_output();
      sent_ = 0;
    }
    if (outgoing_.empty() && (tls_ == nullptr || !tls_->has_unsent())) return;
    const iovec rest{outgoing_.data() + sent_, outgoing_.size() - sent_};
    const ssize_t size = tls_ == nullptr
                             ? ::send(socket_, rest.iov_base, rest.iov_len, MSG_NOSIGNAL | MSG_DONTWAIT)
                             : tls_->send(&rest, 1);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0 && errno == EAGAIN) return;
    if (size < 0) {
      const bool by_tls = tls_ != nullptr && !tls_->error().empty();
      fail(by_tls ? tls_->error() : error_text(errno));
      return;
    }
    sent_ += static_cast<std::size_t>(size);
  }
}

short Forwarder::wanted_events() const {
  if (connecting_) return POLLOUT;
  const bool writes = sent_ < outgoing_.size() || (tls_ != nullptr && tls_->has_unsent());
  return writes ? POLLIN | POLLOUT : POLLIN;
}

// Until there is something to do; then does it.
void Forwarder::wait() {
  if (socket_ >= 0 && !connecting_ && !securing_) write();
  std::array<pollfd, 2> files{};
  files[0] = {wake_fd_, POLLIN, 0};
  nfds_t count = 1;
  if (socket_ >= 0) {
    files[count++] = {socket_, wanted_events(), 0};
  }
  ::poll(files.data(), count, kTickMs);
  if (files[0].revents != 0) {
    std::uint64_t ignored;
    [[maybe_unused]] const auto bytes = ::read(wake_fd_, &ignored, sizeof ignored);
    woken_.store(false);  // before the work is looked for
  }
  if (socket_ < 0 || count < 2) return;
  if (connecting_) {
    if (files[1].revents != 0) finish_connecting();
  } else if (securing_) {
    if (files[1].revents != 0) secure();
  } else if ((files[1].revents & (POLLIN | POLLHUP | POLLERR)) != 0) {
    read();
  }
}

}  // namespace isthmus

#include "src/net/session.hpp"

#include <atomic>
#include <cerrno>
#include <utility>

#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "src/command/dispatcher.hpp"
#include "src/command/forwarded.hpp"
#include "src/net/client_table.hpp"
#include "src/net/io_thread.hpp"
#include "src/observe/logging.hpp"
#include "src/site/forwarder.hpp"
#include "src/tls/contexts.hpp"

namespace isthmus {
namespace {

// A client that sends requests and reads no replies is not read from while so much waits for it. Generous:
// some clients write a whole pipeline before they read the first reply.
constexpr std::size_t kStopReadingAboveBytes = 256 << 20;
// Replies are sent when so much of one pipeline has gathered.
constexpr std::size_t kFlushAboveBytes = 64 << 10;
// Who has not shown the password and reads no replies is closed when so much waits for it.
constexpr std::size_t kStrangerOutputBytes = 64 << 10;
constexpr std::size_t kKeepInputCapacity = 64 << 10;
// A TLS handshake takes so long at most. Until its end a connection counts for maxclients as any other.
constexpr std::int64_t kHandshakeMs = 10'000;

}  // namespace

Session::Session(IoThread& io, const Arrival& arrival)
    : io_(&io),
      socket_(arrival.socket),
      tls_(arrival.tls == nullptr ? nullptr : arrival.tls->serve(arrival.socket)),
      admission_(arrival.admission) {
  fd = socket_;
  thread = io.index();
  authenticated = !io.services().settings.has_password();
}

Session::~Session() {
  if (socket_ >= 0) ::close(socket_);
}

void Session::on_events(std::uint32_t events) {
  if ((events & EPOLLOUT) != 0 && (!output_.empty() || has_unsent())) flush();
  if (closed()) return;
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR | EPOLLRDHUP)) != 0) readable_ = true;
  if ((events & (EPOLLHUP | EPOLLERR | EPOLLRDHUP)) != 0) peer_ended_ = true;
  if (closing_ || io_->draining()) {
    // Nothing is wanted any more; the end of the connection still is. Who only sends no more may still read.
    const bool gone = (events & (EPOLLHUP | EPOLLERR)) != 0 || ((events & EPOLLRDHUP) != 0 && !has_output());
    if (gone) close("closed by the client");
    return;
  }
  read();
}

// Edge-triggered: what the socket has is announced once, and remembered in `readable_` until a read comes
// back short.
void Session::read() {
  if (!readable_ || in_suspended || in_parked || closing_ || io_->draining()) return;
  if (!input_.empty()) {
    read_more(parser_.needed());
    return;
  }
  auto& buffer = io_->read_buffer();
  const ssize_t size = receive(buffer.data(), buffer.size());
  if (size <= 0) return;
  const std::string_view bytes(buffer.data(), static_cast<std::size_t>(size));
  const std::size_t used = evaluate(bytes);
  if (closed()) return;
  if (used < bytes.size()) input_.assign(bytes.substr(used));
  input_bytes.store(input_.size(), std::memory_order_relaxed);
  // All replies of a round leave together at its end: their readers wake up once, not once for each.
  io_->flush_later(*this);
}

// Reads behind what is there already, in larger pieces when a large argument is on its way.
void Session::read_more(std::size_t wanted) {
  constexpr std::size_t kPiece = 64 << 10, kLargePiece = 1 << 20;
  const std::size_t have = input_.size();
  std::size_t piece = kPiece;
  if (wanted > have + kPiece) piece = std::min(wanted - have, kLargePiece);
  // Memory follows what came, not what was announced.
  if (input_.capacity() < have + piece) input_.reserve(std::max(have + piece, std::min(wanted, have * 2)));
  input_.resize(have + piece);
  const ssize_t size = receive(input_.data() + have, piece);
  if (size < 0) return;
  input_.resize(have + static_cast<std::size_t>(size));
  if (size > 0) process();
}

// One read. 0 if there is nothing now, negative if the connection is gone (and closed).
ssize_t Session::receive(char* data, std::size_t room) {
  const ssize_t size = tls_ == nullptr ? ::recv(socket_, data, room, 0) : tls_->receive(data, room);
  if (size < 0 && (errno == EAGAIN || errno == EINTR)) {
    // TLS stops early behind records without data, and nothing announces what the socket still has.
    readable_ = errno == EINTR || (tls_ != nullptr && tls_->has_more());
    if (readable_) io_->read_again(*this);
    return 0;
  }
  if (size == 0 && has_output()) {
    // It sends no more, and may still read what it has asked for.
    closing_ = true;
    io_->flush_later(*this);
    return 0;
  }
  if (size <= 0) {
    close_broken(size == 0 ? "closed by the client" : "read error");
    return -1;
  }
  readable_ = static_cast<std::size_t>(size) == room || peer_ended_ || (tls_ != nullptr && tls_->has_more());
  if (readable_) io_->read_again(*this);
  ThreadStats::add(io_->stats().input_bytes, static_cast<std::uint64_t>(size));
  ThreadStats::add(io_->stats().read_calls, 1);
  last_active_ms.store(io_->steady_ms(), std::memory_order_relaxed);
  return size;
}

// One write, of all pieces at most.
ssize_t Session::send_pieces(Output::Pieces& pieces) {
  if (tls_ != nullptr) return tls_->send(pieces.parts.data(), pieces.count);
  constexpr int kFlags = MSG_NOSIGNAL | MSG_DONTWAIT;
  if (pieces.count == 1) return ::send(socket_, pieces.parts[0].iov_base, pieces.parts[0].iov_len, kFlags);
  msghdr message{};
  message.msg_iov = pieces.parts.data();
  message.msg_iovlen = pieces.count;
  return ::sendmsg(socket_, &message, kFlags);
}

// Closes a connection that cannot go on. If its handshake had begun, an operator may want to know; who only
// looks whether the port is open has said nothing.
void Session::close_broken(std::string_view why) {
  if (tls_ != nullptr && !tls_->established() && tls_->heard()) {
    io_->services().tls->note_failed_handshake(address, tls_->error().empty() ? why : tls_->error());
  }
  close(tls_ == nullptr || tls_->error().empty() ? why : std::string_view(tls_->error()));
}

void Session::resume() {
  io_->flush_later(*this);
  if (!input_.empty() && !io_->draining()) process();
  if (!closed()) read();
}

void Session::process() {
  const std::size_t used = evaluate(input_);
  if (closed()) return;
  input_.erase(0, used);
  if (input_.empty() && input_.capacity() > kKeepInputCapacity) {
    input_.shrink_to_fit();
    parser_.trim();
  }
  input_bytes.store(input_.size(), std::memory_order_relaxed);
  const auto limit = static_cast<std::size_t>(io_->services().settings.query_buffer_limit_bytes.load());
  if (input_.size() > limit && peer == nullptr) {
    io_->services().stats.query_buffer_disconnections.fetch_add(1, std::memory_order_relaxed);
    close("query buffer over client-query-buffer-limit");
    return;
  }
  io_->flush_later(*this);
}

bool Session::must_wait() {
  if (output_.pending_bytes() > kStopReadingAboveBytes) return true;
  if (sleep_until_ms > io_->steady_ms()) return true;
  const Services& services = io_->services();
  // A full book that answers nothing any more refuses new requests at once, and holds up no others.
  const Forwarder* forwarder = services.forwarder;
  if (forwarder != nullptr && forwarder->full() && !forwarder->refuses() && is_elsewhere(services))
    return true;
  // While the log refuses writes, it keeps what it has; but then no more comes, and reads go on.
  const Journal& journal = services.journal;
  return journal.available() && journal.backlog_bytes() > Journal::kBacklogLimitBytes;
}

// Evaluates the whole requests in `bytes`; returns how many bytes it took.
std::size_t Session::evaluate(std::string_view bytes) {
  Services& services = io_->services();
  resp::Writer writer(output_.replies(), protocol);
  std::size_t used = 0;
  while (used < bytes.size() && !closing_) {
    if (must_wait()) {
      io_->suspend(*this);
      break;
    }
    bound_requests();
    const resp::ParseStatus status = parser_.parse(bytes.substr(used));
    if (status == resp::ParseStatus::need_more) break;
    if (status == resp::ParseStatus::error) {
      if (awaits_forwarded) {  // its turn comes behind their replies
        io_->park(*this);
        break;
      }
      protocol_error();
      used = bytes.size();
      break;
    }
    if (!parser_.args().empty()) {
      // What it has been sent so far stands before the next reply.
      if (in_subscribed_mode() && io_->has_mail()) io_->deliver_mail();
      if (refuse_http()) break;
      if (!(awaits_forwarded ? take_behind_forwarded() : take_request(writer))) break;
    }
    used += parser_.consumed();
    if (output_.pending_bytes() > kFlushAboveBytes && !output_.gated(services.journal.committed())) {
      flush();
      if (closed()) break;
    }
  }
  return used;
}

// A web page can have a browser post what it likes to a port of this machine, commands among it. Redis ends
// such connections as well, without a word (networking.c, securityWarningCommand).
bool Session::refuse_http() {
  constexpr std::int64_t kLinePeriodMs = 60'000;
  static std::atomic<std::int64_t> next_line_ms{0};
  const std::string_view name = parser_.args()[0];
  if (!equals_ignoring_case(name, "post") && !equals_ignoring_case(name, "host:")) return false;
  const std::int64_t now_ms = io_->steady_ms();
  std::int64_t next_ms = next_line_ms.load();
  if (now_ms >= next_ms && next_line_ms.compare_exchange_strong(next_ms, now_ms + kLinePeriodMs)) {
    log_warning("Somebody sends HTTP to this port, perhaps a web page that wants to send commands; closed",
                {{"client", id}, {"address", address}});
  }
  close("it sends HTTP");
  return true;
}

// What the next request may be as large as. Another server sends what it has accepted itself.
void Session::bound_requests() {
  constexpr std::int64_t kAnyBulk = std::int64_t{1} << 40;
  const Services& services = io_->services();
  resp::Limits limits;
  limits.max_bulk = peer != nullptr
                        ? kAnyBulk
                        : std::min(services.settings.proto_max_bulk_bytes.load(std::memory_order_relaxed),
                                   static_cast<std::int64_t>(kMostStringBytes));
  parser_.set_limits(limits);
  parser_.set_authenticated(is_admitted(services, *this));
}

// Evaluates the request or sends it on. False if it must wait: it is taken again later.
bool Session::take_request(resp::Writer& writer) {
  if (admission_ != Admission::everyone && refuse_ordinary_client(writer)) return true;
  writer.set_protocol(protocol);
  const Outcome outcome = dispatch(io_->services(), *this, parser_.args(), writer, io_->now_ms());
  if (outcome.postponed) {
    io_->suspend(*this);
    return false;
  }
  if (outcome.forward) return forward();
  parked_since_ms_ = 0;
  after_reply(outcome.gate);
  return true;
}

// The same while forwarded commands are out: only another one of them, or a refusal, may follow.
bool Session::take_behind_forwarded() {
  std::string refusal;
  resp::Writer writer(refusal, protocol);
  Outcome outcome{.postponed = true};
  if (!pending_->after_exec && !pending_->full()) {
    outcome = dispatch(io_->services(), *this, parser_.args(), writer, io_->now_ms());
  }
  if (outcome.postponed) {
    io_->park(*this);
    return false;
  }
  if (outcome.forward) return forward();
  pending_->add(std::move(refusal), drops_reply());
  return true;
}

// Sends the request to the writer of the site. What this connection has published before must be in the log
// first.
bool Session::forward() {
  Services& services = io_->services();
  const bool available = services.journal.available();
  if ((available ? std::max(last_gate, last_message) : last_gate) > services.journal.committed()) {
    const std::int64_t now_ms = io_->steady_ms();
    if (parked_since_ms_ == 0) parked_since_ms_ = now_ms;
    if (!available || now_ms - parked_since_ms_ >= services.settings.commit_timeout_ms.load()) {
      return refuse_to_forward();
    }
    io_->park_until_commit(*this);
    return false;
  }
  parked_since_ms_ = 0;
  const bool exec = in_multi;
  const Command& command = *last_command.load(std::memory_order_relaxed);
  show_forwarded_to_monitors(services, *this, parser_.args());
  const ForwardRequest request = forward_request(services, *this, parser_.args());
  if (exec) end_transaction(services, *this);
  const std::uint64_t number = services.forwarder->submit(request, *io_);
  io_->expect_answer(number, *this);
  if (pending_ == nullptr) pending_ = std::make_unique<PendingReplies>();
  pending_->expect(number, drops_reply(), &command);
  pending_->after_exec = exec;
  awaits_forwarded = true;
  ThreadStats::add(io_->stats().commands[command_index(command)].calls, 1);
  ThreadStats::add(io_->stats().commands_processed, 1);
  return true;
}

// What it would have to wait for may take long.
bool Session::refuse_to_forward() {
  Services& services = io_->services();
  parked_since_ms_ = 0;
  if (in_multi) end_transaction(services, *this);
  std::string refusal;
  resp::Writer(refusal, protocol).error(log_refuses_writes(services.journal));
  if (awaits_forwarded) {
    pending_->add(std::move(refusal), drops_reply());
  } else {
    output_.replies().append(refusal);
    after_reply(0);
  }
  return true;
}

void Session::take_answer(ForwardAnswer& answer) {
  if (pending_ == nullptr) return;
  if (answer.db) db.store(*answer.db, std::memory_order_relaxed);
  const Command* command = pending_->command(answer.request);
  if (command != nullptr && answer.reply.starts_with('-')) {
    ThreadStats::add(io_->stats().commands[command_index(*command)].failed, 1);
    io_->services().stats.count_error(std::string_view(answer.reply).substr(1, answer.reply.find('\r') - 1));
  }
  pending_->fill(answer.request, std::move(answer.reply));
  pending_->take([&](std::string_view reply) {
    output_.replies().append(reply);
    output_.end_reply(0, io_->steady_ms());
  });
  awaits_forwarded = !pending_->empty();
  if (!awaits_forwarded) pending_->after_exec = false;
}

void Session::resume_if_answered() {
  io_->flush_later(*this);
  if (awaits_forwarded || !in_parked) return;
  io_->unpark(*this);
  resume();
}

void Session::fail_waiting(backend::Seq from, backend::Seq to, std::string_view error) {
  if (peer != nullptr && is_elsewhere(io_->services())) {
    close("this server is not the writer any more");
    return;
  }
  std::string reply;
  resp::Writer writer(reply);
  writer.error(error);
  if (peer != nullptr) reply = forwarded_error(reply);
  // What it waited for will never be committed.
  if (last_gate > from && last_gate <= to) last_gate = from;
  if (output_.replace_gated(from, to, reply) != 0) flush();
}

// CLIENT REPLY: whether the reply of the request at hand is not sent.
bool Session::drops_reply() {
  const bool drops = reply_mode != ReplyMode::on;
  if (reply_mode == ReplyMode::skip) reply_mode = ReplyMode::on;
  if (reply_mode == ReplyMode::skip_next) reply_mode = ReplyMode::skip;
  return drops;
}

// The confirmations of SUBSCRIBE and its family are messages, which CLIENT REPLY does not keep back; their
// errors are replies.
bool Session::confirms_subscription() const {
  const Command* command = last_command.load(std::memory_order_relaxed);
  return command != nullptr && command->has(kPubsub) && command->has(kWhenSubscribed) && !in_multi &&
         !output_.unfinished_reply().starts_with('-');
}

// This connection was let in because it might be another server of the site, or to be told why not by TLS.
bool Session::refuse_ordinary_client(resp::Writer& writer) {
  const auto& args = parser_.args();
  if (args.size() > 1 && equals_ignoring_case(args[0], "isthmus") && equals_ignoring_case(args[1], "hello")) {
    return false;
  }
  io_->services().stats.rejected_connections.fetch_add(1, std::memory_order_relaxed);
  writer.error(refusal(admission_));
  close_after_reply = true;
  after_reply(0);
  return true;
}

void Session::after_reply(backend::Seq gate) {
  if (peer != nullptr && std::exchange(counts_as_client_, false)) {
    admission_ = Admission::everyone;
    io_->clients().exempt();
  }
  if (drops_reply() && !confirms_subscription()) output_.drop_reply();
  const bool waits = gate > io_->services().journal.committed();
  output_.end_reply(waits ? gate : 0, io_->steady_ms());
  if (close_after_reply) closing_ = true;
}

void Session::protocol_error() {
  resp::Writer(output_.replies(), protocol).error(parser_.error());
  output_.end_reply(0, io_->steady_ms());
  io_->services().stats.count_error(parser_.error());
  closing_ = true;
}

void Session::flush() {
  if (sleep_until_ms > io_->steady_ms()) {
    io_->suspend(*this);  // DEBUG SLEEP: its reply comes after the time
    return;
  }
  Output::Pieces pieces;
  const backend::Seq committed = io_->services().journal.committed();
  for (;;) {
    output_.gather(committed, pieces);
    if (pieces.count == 0 && !has_unsent()) break;
    const ssize_t sent = send_pieces(pieces);
    if (sent < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN) {
        show_output();
        return;
      }
      close_broken("write error");
      return;
    }
    ThreadStats::add(io_->stats().output_bytes, static_cast<std::uint64_t>(sent));
    ThreadStats::add(io_->stats().write_calls, 1);
    output_.consume(static_cast<std::size_t>(sent));
  }
  show_output();
  if (!output_.empty()) {
    io_->wait_for_commit(*this);
  } else if (closing_ && !awaits_forwarded) {
    close("asked to");
  }
}

void Session::show_output() {
  output_bytes.store(output_.pending_bytes(), std::memory_order_relaxed);
  reply_bytes.store(output_.pending_reply_bytes(), std::memory_order_relaxed);
}

bool Session::can_move() const {
  if (in_dirty || in_suspended || in_gated || in_unread || in_parked || closed() || closing_) return false;
  return !has_output() && peer == nullptr;
}

void Session::move_to(IoThread& io) {
  io_ = &io;
  thread.store(io.index());
}

// What another server asked for is answered when it is decided, or never: its clients are told over there.
void Session::check_commit_timeout(std::int64_t timeout_ms) {
  if (peer != nullptr) return;
  Services& services = io_->services();
  const std::size_t failed =
      output_.fail_gated(services.journal.committed(), io_->steady_ms() - timeout_ms,
                         "CLUSTERDOWN The write is not in the log yet, it may or may not be done: " +
                             services.journal.waiting_reason());
  if (failed == 0) return;
  services.stats.commit_timeouts.fetch_add(failed, std::memory_order_relaxed);
  flush();
}

bool Session::over_output_limit() {
  if (peer != nullptr) return false;
  Settings& settings = io_->services().settings;
  const Settings::OutputLimit& limit = in_subscribed_mode() || monitors.load(std::memory_order_relaxed)
                                           ? settings.pubsub_output
                                           : settings.normal_output;
  const std::size_t pending = output_.pending_bytes();
  if (pending > kStrangerOutputBytes && !is_admitted(io_->services(), *this)) return true;
  const std::uint64_t hard = limit.hard_bytes.load(std::memory_order_relaxed);
  if (hard != 0 && pending > hard) return true;
  const std::uint64_t soft = limit.soft_bytes.load(std::memory_order_relaxed);
  if (soft == 0 || pending <= soft) {
    over_soft_limit_since_ms_ = 0;
    return false;
  }
  if (over_soft_limit_since_ms_ == 0) over_soft_limit_since_ms_ = io_->steady_ms();
  return io_->steady_ms() - over_soft_limit_since_ms_ >
         limit.soft_seconds.load(std::memory_order_relaxed) * 1000;
}

// Only queues: a command may be under evaluation, with locks held. Whether the client keeps up shows when it
// has been sent what its socket takes.
void Session::deliver(const MessageRef& message) {
  if (closed()) return;
  output_.push(message, protocol >= 3);
  queued_messages.store(output_.pending_messages(), std::memory_order_relaxed);
  io_->flush_later(*this);
}

void Session::check_limits() {
  if (closed()) return;
  Services& services = io_->services();
  queued_messages.store(output_.pending_messages(), std::memory_order_relaxed);
  if (over_output_limit()) {
    services.stats.output_buffer_disconnections.fetch_add(1, std::memory_order_relaxed);
    if (in_subscribed_mode()) services.stats.closed_slow_subscribers.fetch_add(1, std::memory_order_relaxed);
    log_warning("A client does not read fast enough and is closed (client-output-buffer-limit)",
                {{"client", id}, {"address", address}, {"waiting_bytes", output_.pending_bytes()}});
    close("output buffer limit");
    return;
  }
  if (tls_ != nullptr && !tls_->established() && io_->steady_ms() - created_ms > kHandshakeMs) {
    close_broken("the TLS handshake took too long");
    return;
  }
  const std::int64_t timeout_s = services.settings.timeout_s.load(std::memory_order_relaxed);
  const bool exempt =
      in_subscribed_mode() || monitors.load(std::memory_order_relaxed) || peer != nullptr || awaits_forwarded;
  if (timeout_s > 0 && !exempt &&
      io_->steady_ms() - last_active_ms.load(std::memory_order_relaxed) > timeout_s * 1000) {
    close("idle for longer than timeout");
  }
}

void Session::close(std::string_view why) {
  if (closed()) return;
  log_debug("Connection closed", {{"client", id}, {"address", address}, {"why", why}});
  for (std::size_t i = 0; i < kChannelKinds; ++i) {
    const auto kind = static_cast<ChannelKind>(i);
    for (const std::string& channel : subscriptions_[i]) io_->remove_subscriber(kind, channel, *this);
    subscriptions_[i].clear();
  }
  forget_watches(io_->services(), *this);
  if (pending_ != nullptr) {
    pending_->for_each_expected([this](std::uint64_t number) { io_->forget_answer(number); });
    pending_.reset();
    awaits_forwarded = false;
  }
  if (tls_ != nullptr) tls_->finish();
  ::close(socket_);
  socket_ = -1;
  output_.clear();
  io_->remove(*this);
}

bool Session::subscribe(ChannelKind kind, std::string_view channel) {
  const bool first = subscription_count() + shard_subscription_count() == 0;
  if (!subscriptions_[static_cast<std::size_t>(kind)].emplace(channel).second) return false;
  // What was published before does not reach it; what comes for the first names of a command must not stand
  // in front of their confirmations.
  if ((first || output_.unfinished_reply().empty()) && io_->has_mail()) io_->deliver_mail();
  io_->add_subscriber(kind, channel, *this);
  count_subscriptions();
  return true;
}

bool Session::unsubscribe(ChannelKind kind, std::string_view channel) {
  auto& names = subscriptions_[static_cast<std::size_t>(kind)];
  const auto it = names.find(channel);
  if (it == names.end()) return false;
  io_->remove_subscriber(kind, channel, *this);
  names.erase(it);
  count_subscriptions();
  return true;
}

void Session::count_subscriptions() {
  shown_subscriptions.store(static_cast<std::uint32_t>(subscriptions_[0].size()), std::memory_order_relaxed);
  shown_patterns.store(static_cast<std::uint32_t>(subscriptions_[1].size()), std::memory_order_relaxed);
  shown_shard_subscriptions.store(static_cast<std::uint32_t>(subscriptions_[2].size()),
                                  std::memory_order_relaxed);
}

}  // namespace isthmus

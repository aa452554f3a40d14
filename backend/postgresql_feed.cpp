#include "backend/postgresql_feed.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <utility>

#include <libpq-fe.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "backend/pgoutput.hpp"
#include "backend/postgresql_connection.hpp"
#include "backend/postgresql_feed_reads.hpp"
#include "backend/postgresql_schema.hpp"
#include "backend/postgresql_slots.hpp"
#include "backend/random_id.hpp"
#include "backend/row_pack.hpp"

namespace isthmus::backend {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

/// How long `begin` waits for the permanent slot that another server is creating or advancing, or for a
/// commit that is under way, before it gives up and says what it waited for.
constexpr milliseconds kBeginPatience{3000};
// The worker of a link waits with half a transaction for a peer that the network has cut off: until its
// connection is given up, after some four seconds.
constexpr milliseconds kSettlePatience{8000};
// A sorted or large read may keep silent for long; whether the server lives, TCP's keepalives tell.
constexpr std::chrono::minutes kReadWait{2};
/// How long the creation of the permanent slot waits for each transaction of the cluster. The caller retries.
constexpr const char* kCreateLockTimeout = "2s";
/// Between two looks at something that should be over in a moment.
constexpr milliseconds kPause{20};
/// The server needs to hear of our position to let go of WAL: that is not urgent. Whatever is urgent it asks.
constexpr milliseconds kReportInterval{1000};
/// `stream` returns after so many messages even if there are more, so that its caller gets a turn.
constexpr int kMessagesPerCall = 20'000;
/// A walsender that does not begin its stream within this is lost.
constexpr milliseconds kStartPatience{10'000};

// SQLSTATEs (PostgreSQL documentation, appendix A).
constexpr std::string_view kUndefinedObject = "42704";
constexpr std::string_view kDuplicateObject = "42710";
constexpr std::string_view kObjectInUse = "55006";
constexpr std::string_view kNotInState = "55000";
constexpr std::string_view kNotSupported = "0A000";
constexpr std::string_view kLockNotAvailable = "55P03";
constexpr std::string_view kLimitExceeded = "53400";

std::string hex(std::uint64_t number) {
  std::array<char, 16> digits{};
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), number, 16).ptr;
  return {digits.data(), end};
}

std::int64_t now_us() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::microseconds>(now).count() - pgoutput::kEpochOffsetUs;
}

std::string one_line(const char* message) {
  std::string line(message == nullptr ? "" : message);
  std::replace(line.begin(), line.end(), '\n', ' ');
  while (!line.empty() && line.back() == ' ') line.pop_back();
  return line.empty() ? "no reason given" : line;
}

class PostgresqlFeed final : public Feed {
 public:
  PostgresqlFeed(std::string conninfo, SiteId site, const std::atomic<bool>* give_up)
      : conninfo_(std::move(conninfo)),
        give_up_(give_up),
        anchor_(permanent_slot(site)),
        wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    if (wake_ < 0) throw FeedError(std::string("no eventfd: ") + std::strerror(errno));
  }
  ~PostgresqlFeed() override { ::close(wake_); }
  PostgresqlFeed(const PostgresqlFeed&) = delete;
  PostgresqlFeed& operator=(const PostgresqlFeed&) = delete;

  Position begin(FeedScope scope) override;
  void read_state(LoadSink& sink) override {
    guarded([&] { reads().read_state(sink); });
  }
  bool read_missing(const Vector& known, FeedSink& sink) override {
    return guarded([&] { return reads().read_missing(known, sink); });
  }
  Vector last_seqs() override {
    return guarded([&] { return reads().last_seqs(); });
  }
  LeaseRow newest_lease() override {
    return guarded([&] { return reads().newest_lease(); });
  }
  InboxWindow read_inbox() override {
    return guarded([&] {
      // Once a second: a short one, which a database that hangs must not hold up for minutes.
      FeedReads& reads = this->reads();
      tables_->set_statement_wait(PgConnectOptions().statement_wait);
      InboxWindow inbox = reads.read_inbox();
      tables_->set_statement_wait(kReadWait);
      return inbox;
    });
  }
  void stream(FeedSink& sink, milliseconds patience) override {
    guarded([&] { stream_now(sink, patience); });
  }
  void interrupt() override { ::eventfd_write(wake_, 1); }

 private:
  /// Ends the sessions whatever goes wrong in `function`, for they may be in the middle of something, and
  /// makes a FeedError of what PostgreSQL says.
  template <typename Function>
  auto guarded(Function function) -> decltype(function()) {
    try {
      return function();
    } catch (const PgError& error) {
      close();
      throw FeedError(error.what());
    } catch (...) {
      close();
      throw;
    }
  }
  FeedReads& reads() {
    if (!reads_) throw FeedError("the feed has not begun");
    return *reads_;
  }
  void close();

  // The slots.
  Position copy_anchor();
  void create_anchor();
  void await_anchor(const PgError& error, Clock::time_point deadline);
  [[noreturn]] void name_what_blocks();
  void settle();

  // The stream.
  void start_stream();
  void stream_now(FeedSink& sink, milliseconds patience);
  bool drain(FeedSink& sink);
  bool take(std::string_view bytes, FeedSink& sink);
  bool advance(Position position, FeedSink& sink);
  void report(Clock::time_point now);
  bool wait_for_stream(milliseconds patience);
  [[noreturn]] void stream_ended();

  const std::string conninfo_;
  const std::atomic<bool>* const give_up_;
  const std::string anchor_;  // the permanent slot
  const int wake_;            // an eventfd: somebody interrupts
  std::string publication_;
  std::optional<PgConnection> tables_, replication_;
  std::optional<FeedReads> reads_;
  std::string slot_;  // the temporary copy, which lives as long as replication_

  bool streaming_ = false;
  pgoutput::Decoder decoder_;
  pgoutput::Event event_;
  bool in_transaction_ = false;
  Position position_ = 0;  // up to here all has been handed out
  Position reported_ = 0;
  Clock::time_point reported_at_;
  bool reply_requested_ = false;
  bool unsent_ = false;  // a status is still in libpq's buffer
};

void PostgresqlFeed::close() {
  reads_.reset();
  tables_.reset();
  replication_.reset();
  streaming_ = false;
}

// The order matters. What commits behind the position of the permanent slot comes in the stream. What
// committed before must be visible to the snapshots of later reads: its commit is in the WAL, but for a
// moment (or, under synchronous replication, until the standby has it) it may be in no snapshot yet. `settle`
// waits for that. The stream itself begins with the first `stream`: until then the server waits in its
// command loop, where no timeout of a walsender runs.
Position PostgresqlFeed::begin(FeedScope scope) {
  return guarded([&] {
    close();
    publication_ = scope == FeedScope::everything ? kPublication : kWriterPublication;
    PgConnectOptions options;
    options.application_name = "isthmus feed";
    options.give_up = give_up_;
    replication_.emplace(conninfo_, [&] {
      PgConnectOptions with_replication = options;
      with_replication.replication = true;
      return with_replication;
    }());
    tables_.emplace(conninfo_, options);
    position_ = copy_anchor();
    settle();
    reads_.emplace(*tables_);
    tables_->set_statement_wait(kReadWait);
    decoder_ = pgoutput::Decoder();
    in_transaction_ = reply_requested_ = unsent_ = false;
    reported_ = 0;
    reported_at_ = Clock::now();
    return position_;
  });
}

// ---- the slots ----

Position PostgresqlFeed::copy_anchor() {
  const Clock::time_point deadline = Clock::now() + kBeginPatience;
  for (;;) {
    slot_ = "isthmus_feed_" + hex(static_cast<std::uint64_t>(random_id()));
    try {
      const PgResult copy = replication_->exec("SELECT lsn FROM pg_copy_logical_replication_slot('" +
                                               anchor_ + "', '" + slot_ + "', true)");
      return parse_lsn(copy.bytes(0, 0));
    } catch (const PgError& error) {
      if (error.connection_lost) throw;
      if (error.sqlstate == kLimitExceeded) {
        throw FeedError(std::string(error.what()) + ": raise max_replication_slots, each server needs one");
      }
      if (error.sqlstate == kUndefinedObject) {
        create_anchor();
      } else if (error.sqlstate == kNotInState || error.sqlstate == kNotSupported) {
        await_anchor(error, deadline);
      } else {
        throw;
      }
    }
  }
}

/// Makes the permanent slot. That waits for every transaction of the cluster that has an xid, so it is
/// bounded, and says what it waited for.
void PostgresqlFeed::create_anchor() {
  tables_->exec(std::string("SET lock_timeout = '") + kCreateLockTimeout + "'");
  try {
    tables_->exec("SELECT pg_create_logical_replication_slot('" + anchor_ + "', 'pgoutput')");
  } catch (const PgError& error) {
    if (error.sqlstate == kLockNotAvailable) name_what_blocks();
    if (error.sqlstate == kLimitExceeded) {
      throw FeedError(std::string(error.what()) + ": raise max_replication_slots");
    }
    // Another server was faster.
    if (error.sqlstate != kDuplicateObject) throw;
  }
}

void PostgresqlFeed::name_what_blocks() {
  throw FeedError("the replication slot " + anchor_ + " cannot be created yet: its creation waits for " +
                  oldest_transaction(*tables_));
}

/// The permanent slot is there and cannot be copied: another server is just creating it, or it has lost its
/// WAL. Then nothing is lost but the slot, for a feed reads the tables after it has its copy.
void PostgresqlFeed::await_anchor(const PgError& error, Clock::time_point deadline) {
  const PgResult state = tables_->exec(
      "SELECT coalesce(wal_status = 'lost', false) FROM pg_replication_slots WHERE slot_name = '" + anchor_ +
      "'");
  if (state.rows() == 1 && state.boolean(0, 0)) {
    try {
      tables_->exec("SELECT pg_drop_replication_slot('" + anchor_ + "')");
      return;
    } catch (const PgError& failed) {
      if (failed.sqlstate == kUndefinedObject) return;
      if (failed.sqlstate != kObjectInUse) throw;
    }
  }
  if (Clock::now() >= deadline) {
    if (state.rows() == 1 && !state.boolean(0, 0)) name_what_blocks();
    throw FeedError("the replication slot " + anchor_ + " cannot be copied: " + error.what());
  }
  ::poll(nullptr, 0, static_cast<int>(kPause.count()));
}

void PostgresqlFeed::settle() {
  const std::string busy = await_log_writers(*tables_, kSettlePatience);
  if (!busy.empty()) throw FeedError("the feed cannot begin yet: process " + busy);
}

// ---- the stream ----

void PostgresqlFeed::start_stream() {
  if (!replication_) throw FeedError("the feed has not begun");
  replication_->send("START_REPLICATION SLOT \"" + slot_ +
                     "\" LOGICAL 0/0 (proto_version '1', publication_names '" + publication_ +
                     "', binary 'true')");
  const Clock::time_point deadline = Clock::now() + kStartPatience;
  while (PQisBusy(replication_->handle()) != 0) {
    const auto left = std::chrono::duration_cast<milliseconds>(deadline - Clock::now());
    if (left.count() <= 0) throw FeedError("PostgreSQL does not begin the stream");
    pollfd socket{PQsocket(replication_->handle()), POLLIN, 0};
    ::poll(&socket, 1, static_cast<int>(left.count()));
    if (PQconsumeInput(replication_->handle()) == 0) stream_ended();
  }
  PGresult* result = PQgetResult(replication_->handle());
  const bool begun = PQresultStatus(result) == PGRES_COPY_BOTH;
  const std::string problem = begun ? "" : one_line(PQresultErrorMessage(result));
  PQclear(result);
  if (!begun) throw FeedError("PostgreSQL refuses the stream: " + problem);
  streaming_ = true;
}

void PostgresqlFeed::stream_now(FeedSink& sink, milliseconds patience) {
  if (!streaming_) start_stream();
  const Clock::time_point deadline = Clock::now() + patience;
  for (;;) {
    const bool handed_out = drain(sink);
    const Clock::time_point now = Clock::now();
    report(now);
    if (handed_out || now >= deadline) break;
    Clock::time_point until = deadline;
    if (position_ != reported_) until = std::min(until, reported_at_ + kReportInterval);
    const auto left = std::chrono::ceil<milliseconds>(until - now);
    if (wait_for_stream(std::max(left, milliseconds(0)))) break;
  }
}

/// Waits for the server, for room to send, or for `interrupt`: true if it was that.
bool PostgresqlFeed::wait_for_stream(milliseconds patience) {
  std::array<pollfd, 2> waits{};
  waits[0] = {PQsocket(replication_->handle()), static_cast<short>(POLLIN | (unsent_ ? POLLOUT : 0)), 0};
  waits[1] = {wake_, POLLIN, 0};
  const int ready = ::poll(waits.data(), waits.size(), static_cast<int>(patience.count()));
  if (ready < 0 && errno != EINTR) throw FeedError(std::string("poll: ") + std::strerror(errno));
  eventfd_t count = 0;
  return ready > 0 && waits[1].revents != 0 && ::eventfd_read(wake_, &count) == 0;
}

/// Hands out all that has come; true if there was anything to hand out.
bool PostgresqlFeed::drain(FeedSink& sink) {
  bool handed_out = false, consumed = false;
  int messages = 0;
  for (;;) {
    char* bytes = nullptr;
    const int size = PQgetCopyData(replication_->handle(), &bytes, 1);
    if (size < 0) stream_ended();
    if (size > 0) {
      const std::unique_ptr<char, void (*)(void*)> owner(bytes, &PQfreemem);
      handed_out |= take({bytes, static_cast<std::size_t>(size)}, sink);
      consumed = false;
      if (++messages >= kMessagesPerCall) return true;
      if (reply_requested_) report(Clock::now());
      continue;
    }
    // Twice without a whole message: there is no more for now.
    if (consumed) return handed_out;
    if (PQconsumeInput(replication_->handle()) == 0) stream_ended();
    consumed = true;
  }
}

bool PostgresqlFeed::take(std::string_view bytes, FeedSink& sink) {
  pgoutput::Envelope envelope;
  if (!pgoutput::parse_envelope(bytes, envelope))
    throw FeedError("PostgreSQL sent a message of an unknown type");
  if (envelope.kind == pgoutput::Envelope::Kind::keepalive) {
    reply_requested_ |= envelope.reply_requested;
    // Outside of a transaction everything that commits before has been sent.
    return !in_transaction_ && advance(envelope.end, sink);
  }
  switch (decoder_.decode(envelope.data, event_)) {
    case pgoutput::Kind::row:
      if (for_each_row(event_.row, [&](const Row& row) { sink.row(row); })) return true;
      throw FeedError("a log row that holds several does not fit its sizes");
    case pgoutput::Kind::inbox:
      sink.inbox(event_.inbox);
      return true;
    case pgoutput::Kind::begin:
      in_transaction_ = true;
      return false;
    case pgoutput::Kind::commit:
      in_transaction_ = false;
      return advance(event_.position, sink);
    case pgoutput::Kind::ignored:
    case pgoutput::Kind::relation:
      return false;
    case pgoutput::Kind::malformed:
      break;
  }
  throw FeedError("the change stream cannot be read: " + event_.error);
}

bool PostgresqlFeed::advance(Position position, FeedSink& sink) {
  if (position <= position_) return false;
  position_ = position;
  sink.reached(position);
  return true;
}

/// Tells the server how far we are: at once if it asked (it ends sessions that do not answer, and its fast
/// shutdown waits for the answer), else now and then.
void PostgresqlFeed::report(Clock::time_point now) {
  PGconn* connection = replication_->handle();
  if (!unsent_ && (reply_requested_ || (position_ != reported_ && now - reported_at_ >= kReportInterval))) {
    const auto status = pgoutput::standby_status(position_, now_us());
    const int put = PQputCopyData(connection, status.data(), static_cast<int>(status.size()));
    if (put < 0) stream_ended();
    if (put > 0) {
      reply_requested_ = false;
      reported_ = position_;
      reported_at_ = now;
    }
    unsent_ = true;
  }
  if (!unsent_) return;
  const int flushed = PQflush(connection);
  if (flushed < 0) stream_ended();
  unsent_ = flushed != 0;
}

void PostgresqlFeed::stream_ended() {
  PGconn* connection = replication_->handle();
  std::string why;
  // An error message of the server says more than the loss of the connection that follows it.
  if (PGresult* result = PQgetResult(connection); result != nullptr) {
    if (PQresultStatus(result) == PGRES_FATAL_ERROR) why = one_line(PQresultErrorMessage(result));
    PQclear(result);
  }
  if (why.empty()) why = one_line(PQerrorMessage(connection));
  throw FeedError("the change stream ended: " + why);
}

}  // namespace

std::unique_ptr<Feed> open_postgresql_feed(const std::string& conninfo, SiteId site,
                                           const std::atomic<bool>* give_up) {
  return std::make_unique<PostgresqlFeed>(conninfo, site, give_up);
}

}  // namespace isthmus::backend

#include "backend/postgresql_peer.hpp"

#include <chrono>
#include <optional>
#include <utility>

#include <poll.h>

#include "backend/postgresql_connection.hpp"
#include "backend/postgresql_feed_reads.hpp"
#include "backend/postgresql_schema.hpp"
#include "backend/postgresql_slots.hpp"
#include "backend/random_id.hpp"

namespace isthmus::backend {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

/// How long something is waited for that should be over in a moment: another session that copies or advances
/// the permanent slot, a commit that is under way, a walsender that was told to end.
constexpr milliseconds kPatience{3000}, kEndPatience{500};
constexpr int kPauseMs = 20;
/// A sorted or large read may keep silent for long; whether the server lives, TCP's keepalives tell.
constexpr milliseconds kReadWait{120'000}, kStatementWait{10'000};

// SQLSTATEs (PostgreSQL documentation, appendix A).
constexpr std::string_view kUndefinedObject = "42704";
constexpr std::string_view kObjectInUse = "55006";
constexpr std::string_view kNotInState = "55000";
constexpr std::string_view kNotSupported = "0A000";
constexpr std::string_view kLimitExceeded = "53400";

std::int64_t system_clock_ms() {
  return std::chrono::duration_cast<milliseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

std::string checked_description(const std::string& conninfo) {
  try {
    check_conninfo(conninfo);
    return describe_conninfo(conninfo);
  } catch (const PgError& error) {
    throw LinkError(error.what());
  }
}

class PostgresqlPeer final : public Peer {
 public:
  PostgresqlPeer(const std::string& conninfo, SiteId own)
      : description_(checked_description(conninfo)), prefix_(link_slot_prefix(own)) {
    guarded([&] {
      PgConnectOptions options;
      options.application_name = "isthmus link of " + site_hex(own);
      session_.emplace(conninfo, options);
      identify();
    });
  }

  SiteId site() const override { return site_; }
  const std::string& name() const override { return name_; }
  std::int64_t clock_offset_ms() override;
  void give_up_when(const std::atomic<bool>& flag) override {
    if (session_) session_->give_up_when(&flag);
  }
  Reaches reaches(Position& end) override;
  PeerSlot slot(const std::string& name) override;
  std::string create_slot() override;
  void drop_slots(const std::string& keep) override;
  void read_state(LoadSink& sink, Reaches& reaches) override;
  void read_messages(std::int64_t sent_since, LoadSink& sink) override;
  bool read_rows(OriginId origin, Seq from, Seq to, LoadSink& sink) override;

 private:
  /// Ends the session whatever goes wrong in `function`, for it may be in the middle of something, and makes
  /// a LinkError of what PostgreSQL says.
  template <typename Function>
  auto guarded(Function function) -> decltype(function()) {
    try {
      return function();
    } catch (const PgError& error) {
      session_.reset();
      fail(error.what());
    } catch (const OpenError& error) {
      session_.reset();
      fail(error.what());
    } catch (...) {
      session_.reset();
      throw;
    }
  }
  [[noreturn]] void fail(const std::string& why) const { throw LinkError(description_ + ": " + why); }
  PgConnection& session() {
    if (!session_) fail("the session has ended");
    return *session_;
  }
  void identify();
  void check_schema();
  void copy_anchor(const std::string& name);
  bool drop_slot(const std::string& name);
  template <typename Read>
  auto read(Read read);

  const std::string description_, prefix_;
  std::optional<PgConnection> session_;
  SiteId site_ = 0;
  std::string name_;
};

void PostgresqlPeer::check_schema() {
  const std::int64_t version = schema_version(session());
  if (version == 0) {
    fail("there is no Isthmus in this database: check its name, and start the server of that site first");
  }
  const std::string versions = "its schema has version " + std::to_string(version) + ", ours " +
                               std::to_string(kPostgresqlSchemaVersion);
  if (version < kPostgresqlSchemaVersion) fail(versions + ": upgrade it first");
  if (version > kPostgresqlSchemaVersion) fail(versions + ": upgrade this site first");
}

void PostgresqlPeer::identify() {
  check_schema();
  const PgResult facts = session().exec(
      std::string("SELECT id, name, current_user, EXISTS (SELECT FROM pg_publication WHERE pubname = '") +
      kLinkPublication +
      "'), EXISTS (SELECT FROM pg_roles WHERE rolname = current_user AND (rolsuper OR rolreplication)) OR "
      "EXISTS (SELECT FROM pg_roles WHERE rolname = 'rds_replication' AND pg_has_role(oid, 'USAGE')) "
      "FROM isthmus.site");
  if (facts.rows() != 1) fail("the database is damaged: the table isthmus.site must have one row");
  site_ = facts.integer(0, 0);
  name_ = facts.string(0, 1);
  const std::string role = facts.string(0, 2);
  if (!facts.boolean(0, 3)) {
    fail(std::string("its publication ") + kLinkPublication + " is missing: restart the server of that site");
  }
  if (!facts.boolean(0, 4)) {
    fail("the role " + role + " may not replicate there: ALTER ROLE " + role + " REPLICATION");
  }
}

std::int64_t PostgresqlPeer::clock_offset_ms() {
  return guarded([&] {
    const std::int64_t before = system_clock_ms();
    const std::int64_t theirs =
        session().exec("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint").integer(0, 0);
    return theirs - (before + system_clock_ms()) / 2;
  });
}

// ---- reading ----

/// Runs `read` on the session, with the settings and the patience of a long read.
template <typename Read>
auto PostgresqlPeer::read(Read read) {
  return guarded([&] {
    session().set_statement_wait(kReadWait);
    FeedReads reads(session());
    const auto result = read(reads);
    session().set_statement_wait(kStatementWait);
    return result;
  });
}

Reaches PostgresqlPeer::reaches(Position& end) {
  return guarded([&] {
    Reaches result = read_reaches(session());
    // Behind the snapshot: whoever has received so far must have all that the snapshot saw.
    end = parse_lsn(session().exec("SELECT pg_current_wal_insert_lsn()").bytes(0, 0));
    return result;
  });
}

void PostgresqlPeer::read_state(LoadSink& sink, Reaches& reaches) {
  read([&](FeedReads& reads) {
    reads.read_state_and_reaches(sink, reaches);
    return true;
  });
}

void PostgresqlPeer::read_messages(std::int64_t sent_since, LoadSink& sink) {
  read([&](FeedReads& reads) {
    reads.read_messages(site_, sent_since, sink);
    return true;
  });
}

bool PostgresqlPeer::read_rows(OriginId origin, Seq from, Seq to, LoadSink& sink) {
  return read([&](FeedReads& reads) { return reads.read_rows(origin, from, to, sink); });
}

// ---- slots ----

PeerSlot PostgresqlPeer::slot(const std::string& name) {
  return guarded([&] {
    const PgResult row = session().exec(
        "SELECT coalesce(wal_status = 'lost', false), confirmed_flush_lsn FROM pg_replication_slots WHERE "
        "slot_name = " +
        session().literal(name));
    if (row.rows() == 0) return PeerSlot();
    return PeerSlot{true, row.boolean(0, 0), parse_lsn(row.bytes(0, 1))};
  });
}

void PostgresqlPeer::copy_anchor(const std::string& name) {
  const std::string anchor = permanent_slot(site_);
  const Clock::time_point deadline = Clock::now() + kPatience;
  for (;;) {
    try {
      session().exec("SELECT pg_copy_logical_replication_slot('" + anchor + "', '" + name +
                     "', false, 'pgoutput')");
      return;
    } catch (const PgError& error) {
      if (error.sqlstate == kUndefinedObject) {
        fail("its permanent slot " + anchor + " is missing: the server of that site has not run yet");
      }
      if (error.sqlstate == kLimitExceeded) {
        fail(std::string(error.what()) + ": raise max_replication_slots there");
      }
      // Another session is just making it, or it has lost its WAL and that site's server will make it anew.
      const bool passing = error.sqlstate == kNotInState || error.sqlstate == kNotSupported;
      if (!passing || Clock::now() >= deadline) throw;
    }
    ::poll(nullptr, 0, kPauseMs);
  }
}

// The copy goes ahead to the end of the WAL: the permanent slot may stand before the publication was made,
// and a stream that begins there fails for ever.
std::string PostgresqlPeer::create_slot() {
  return guarded([&] {
    const std::string name = prefix_ + site_hex(random_id());
    const std::string end = session().exec("SELECT pg_current_wal_flush_lsn()").string(0, 0);
    copy_anchor(name);
    session().set_statement_wait(kReadWait);
    session().exec("SELECT pg_replication_slot_advance(slot_name, greatest(confirmed_flush_lsn, '" + end +
                   "'::pg_lsn)) FROM pg_replication_slots WHERE slot_name = '" + name + "'");
    session().set_statement_wait(kStatementWait);
    const std::string busy = await_log_writers(session(), kPatience);
    if (!busy.empty()) {
      drop_slot(name);
      fail("the link cannot begin yet: process " + busy);
    }
    return name;
  });
}

/// False if it is in use.
bool PostgresqlPeer::drop_slot(const std::string& name) {
  try {
    session().exec("SELECT pg_drop_replication_slot(" + session().literal(name) + ")");
    return true;
  } catch (const PgError& error) {
    if (error.sqlstate == kUndefinedObject) return true;
    if (error.sqlstate != kObjectInUse) throw;
    return false;
  }
}

void PostgresqlPeer::drop_slots(const std::string& keep) {
  guarded([&] {
    const PgResult slots =
        session().exec("SELECT slot_name FROM pg_replication_slots WHERE starts_with(slot_name, '" + prefix_ +
                       "') AND database = current_database() AND slot_name <> " + session().literal(keep));
    for (int i = 0; i < slots.rows(); ++i) {
      const std::string name = slots.string(i, 0);
      const Clock::time_point deadline = Clock::now() + kEndPatience;
      while (!drop_slot(name) && Clock::now() < deadline) {
        session().exec(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = " +
            session().literal(name) + " AND active_pid IS NOT NULL");
        ::poll(nullptr, 0, kPauseMs);
      }
    }
  });
}

}  // namespace

std::string link_slot_prefix(SiteId receiver) { return "isthmus_link_" + site_hex(receiver) + "_"; }

std::unique_ptr<Peer> connect_postgresql_peer(const std::string& conninfo, SiteId own) {
  return std::make_unique<PostgresqlPeer>(conninfo, own);
}

}  // namespace isthmus::backend

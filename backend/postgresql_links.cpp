#include "backend/postgresql_links.hpp"

#include <array>
#include <charconv>
#include <chrono>
#include <optional>
#include <utility>

#include <libpq-fe.h>
#include <poll.h>

#include "backend/postgresql_admin_sql.hpp"
#include "backend/postgresql_checkpoint.hpp"
#include "backend/postgresql_copy.hpp"
#include "backend/postgresql_feed_reads.hpp"
#include "backend/postgresql_peer.hpp"
#include "backend/postgresql_schema.hpp"
#include "backend/postgresql_slots.hpp"

namespace isthmus::backend {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr const char* kSettings =
    "SET client_connection_check_interval = '500ms'; SET idle_in_transaction_session_timeout = '3s'; "
    "SET jit = off; SET lock_timeout = '5s'";

/// What a subscription's connection has unless the string says so itself: with these both ends notice a
/// dropped link in 3.2 s (one idle spell of 2 s and unanswered probes a second apart, or 4 s of
/// unacknowledged data). The peer's walsender too goes by TCP. Its own timeout would end a link on which a
/// long outage is caught up with: the worker answers only when it has applied all that is under way, some
/// megabytes.
constexpr std::array<std::pair<const char*, const char*>, 6> kLinkDefaults = {{
    {"connect_timeout", "3"},      // seconds
    {"keepalives_idle", "2"},      // seconds
    {"keepalives_interval", "1"},  // seconds
    {"keepalives_count", "3"},     // probes
    {"tcp_user_timeout", "4000"},  // milliseconds
    {"options",
     "-c wal_sender_timeout=60s -c tcp_user_timeout=4000 -c tcp_keepalives_idle=2 "
     "-c tcp_keepalives_interval=1 -c tcp_keepalives_count=3"},
}};

/// How long a slot that is in use is waited for after its walsender was told to end.
constexpr milliseconds kEndPatience{1000};
constexpr int kPauseMs = 20;
/// A connection that breaks is tried again after this setting: longer than so, and a short break is felt.
constexpr std::int64_t kLongRetryMs = 1000;
/// The first version that lets a role without superuser rights create subscriptions.
constexpr int kSubscriptionRoleVersion = 160000;

constexpr std::string_view kUndefinedObject = "42704";
constexpr std::string_view kObjectInUse = "55006";

std::string subscription_name(SiteId peer) { return "isthmus_link_" + site_hex(peer); }

/// The site id in the name of a subscription or of a slot; 0 if there is none.
SiteId site_of(std::string_view name) {
  constexpr std::string_view kPrefix = "isthmus_link_";
  if (!name.starts_with(kPrefix)) return 0;
  name.remove_prefix(kPrefix.size());
  std::uint64_t site = 0;
  const auto [end, problem] = std::from_chars(name.data(), name.data() + name.size(), site, 16);
  const bool whole = problem == std::errc() && (end == name.data() + name.size() || *end == '_');
  return whole ? static_cast<SiteId>(site) : 0;
}

class PostgresqlLinks final : public Links {
 public:
  PostgresqlLinks(std::string conninfo, SiteId site, const std::atomic<bool>* give_up)
      : conninfo_(std::move(conninfo)),
        description_(describe_conninfo(conninfo_)),
        site_(site),
        give_up_(give_up) {}

  std::vector<std::string> check() override;
  std::optional<std::string> missing_rights() override;
  void name_site(const std::string& name) override;
  std::vector<PeerRow> peers() override {
    return run([](PgConnection& session) { return read_peers(session); });
  }
  void put_peer(const PeerRow& peer) override;
  bool update_peer(const PeerRow& peer) override;
  void expel_peer(const PeerRow& peer) override {
    run([&](PgConnection& session) { let_go(session, peer); });
  }
  void forget_peer(const PeerRow& peer) override;
  std::unique_ptr<Peer> connect(const std::string& conninfo) override {
    return connect_postgresql_peer(conninfo, site_);
  }
  std::map<SiteId, Subscription> subscriptions() override;
  std::map<SiteId, KeptSlot> kept_slots() override;
  void create_subscription(const PeerRow& peer, const std::string& slot) override;
  void update_subscription(const PeerRow& peer, bool far_behind) override;
  void drop_subscription(SiteId peer) override {
    run([&](PgConnection& session) { drop_link(session, peer); });
  }
  Reaches reaches() override {
    return run([](PgConnection& session) { return read_reaches(session); });
  }
  void append(const RowBatch& rows, OriginId lease) override;

 private:
  template <typename Body>
  auto run(const Body& body) -> decltype(body(std::declval<PgConnection&>()));
  void let_go(PgConnection& session, const PeerRow& peer);
  static void drop_link(PgConnection& session, SiteId peer);
  static void drop_kept_slots(PgConnection& session, SiteId peer);

  const std::string conninfo_, description_;
  const SiteId site_;
  const std::atomic<bool>* const give_up_;
  std::unique_ptr<PgConnection> session_;
  std::map<SiteId, std::string> connections_;  // what our subscriptions were told, as far as we did it
  std::string buffer_;
};

/// Runs `body` on the session, which is opened if there is none; an error becomes a LinkError.
template <typename Body>
auto PostgresqlLinks::run(const Body& body) -> decltype(body(std::declval<PgConnection&>())) {
  try {
    if (!session_) {
      PgConnectOptions options;
      options.application_name = "isthmus links";
      options.give_up = give_up_;
      auto session = std::make_unique<PgConnection>(conninfo_, options);
      session->exec(kSettings);
      session_ = std::move(session);
    }
    return body(*session_);
  } catch (const PgError& error) {
    if (error.connection_lost) session_.reset();
    throw LinkError(description_ + ": " + error.what());
  } catch (const LeaseChanged& error) {
    throw LinkError(description_ + ": another server has taken the lease: the links are its business now");
  } catch (const LinkError&) {
    throw;
  } catch (...) {
    session_.reset();  // nobody knows in which state it is
    throw;
  }
}

// ---- what PostgreSQL allows ----

struct Capacity {
  const char* setting;
  std::int64_t has, needs;
  const char* what;
};

/// Whether an administrator has given the role a function that creates subscriptions for it, which it cannot
/// itself. One that a restore by the role has made its own can do no more than the role.
bool has_admin_function(PgConnection& session) {
  if (session.server_version() >= kSubscriptionRoleVersion) return false;
  const std::string function = session.literal(kCreateSubscriptionFunction);
  return session
      .exec(
          "SELECT NOT rolsuper AND coalesce(has_schema_privilege('isthmus_admin', 'USAGE') AND "
          "has_function_privilege(to_regprocedure(" +
          function +
          "), 'EXECUTE') AND (SELECT o.rolsuper FROM pg_proc p JOIN pg_roles o ON o.oid = p.proowner WHERE "
          "p.oid = to_regprocedure(" +
          function +
          ")), false) FROM pg_roles WHERE rolname = current_user AND "
          "to_regnamespace('isthmus_admin') IS NOT NULL UNION ALL SELECT false LIMIT 1")
      .boolean(0, 0);
}

std::optional<std::string> find_missing_rights(PgConnection& session) {
  const bool has_role = session.server_version() >= kSubscriptionRoleVersion;
  const PgResult rights = session.exec(
      std::string("SELECT rolname, rolsuper, current_database(), has_database_privilege(current_database(), "
                  "'CREATE'), ") +
      (has_role ? "pg_has_role('pg_create_subscription', 'USAGE')" : "false") +
      " FROM pg_roles WHERE rolname = current_user");
  const std::string role = rights.string(0, 0);
  if (rights.boolean(0, 1)) return std::nullopt;
  if (!has_role && has_admin_function(session)) return std::nullopt;
  if (!has_role) {
    const std::string database = rights.string(0, 2);
    return "the role " + role +
           " may not create subscriptions, which takes a superuser before PostgreSQL 16: have one run "
           "isthmus "
           "--print-admin-sql | psql -v role=" +
           role + " -d " + database + ", or ALTER ROLE " + role + " SUPERUSER, or upgrade PostgreSQL";
  }
  if (!rights.boolean(0, 4)) {
    return "the role " + role + " may not create subscriptions: GRANT pg_create_subscription TO " + role;
  }
  if (!rights.boolean(0, 3)) {
    const std::string database = rights.string(0, 2);
    return "the role " + role + " may not create subscriptions in this database: GRANT CREATE ON DATABASE " +
           database + " TO " + role;
  }
  return std::nullopt;
}

/// What the cluster has room for, beside what it needs with a link to and from each peer.
std::vector<std::string> missing_capacity(PgConnection& session) {
  // A slot and a walsender for each peer that has none yet; for our own subscriptions a worker and an origin.
  const PgResult row = session.exec(
      "SELECT count(*), (SELECT count(*) FROM pg_subscription WHERE subname !~ '^isthmus_link_' OR subdbid "
      "<> "
      "(SELECT oid FROM pg_database WHERE datname = current_database())), "
      "(SELECT count(*) FROM pg_replication_slots WHERE slot_name !~ '^isthmus_link_' OR database <> "
      "current_database()), (SELECT count(*) FROM pg_stat_replication WHERE application_name !~ "
      "'^isthmus_link_'), current_setting('max_logical_replication_workers'), "
      "current_setting('max_worker_processes'), current_setting('max_replication_slots'), "
      "current_setting('max_wal_senders') FROM isthmus.peer");
  const std::int64_t peers = std::max<std::int64_t>(row.integer(0, 0), 1);
  const std::int64_t others = row.integer(0, 1);
  const Capacity capacities[] = {
      {"max_logical_replication_workers", row.integer(0, 4), peers + others,
       "a worker for each subscription"},
      {"max_worker_processes", row.integer(0, 5), peers + others + 1,
       "a worker for each subscription, and their launcher"},
      {"max_replication_slots", row.integer(0, 6), row.integer(0, 2) + peers, "a slot for each peer"},
      {"max_wal_senders", row.integer(0, 7), row.integer(0, 3) + peers, "a walsender for each peer"}};
  std::vector<std::string> lines;
  for (const Capacity& of : capacities) {
    if (of.has >= of.needs) continue;
    lines.push_back(std::string(of.setting) + " = " + std::to_string(of.has) + " is too low for " +
                    std::to_string(peers) + (peers == 1 ? " peer (" : " peers (") + of.what +
                    "): set it to " + std::to_string(of.needs) +
                    " or more in postgresql.conf and restart PostgreSQL");
  }
  return lines;
}

std::optional<std::string> PostgresqlLinks::missing_rights() { return run(find_missing_rights); }

std::vector<std::string> PostgresqlLinks::check() {
  return run([](PgConnection& session) {
    std::vector<std::string> lines;
    if (const auto rights = find_missing_rights(session)) lines.push_back(*rights);
    for (std::string& line : missing_capacity(session)) lines.push_back(std::move(line));
    const PgResult settings = session.exec(
        "SELECT (SELECT setting FROM pg_settings WHERE name = 'max_slot_wal_keep_size'), "
        "(SELECT setting FROM pg_settings WHERE name = 'wal_retrieve_retry_interval')");
    if (settings.integer(0, 0) < 0) {
      lines.push_back(
          "max_slot_wal_keep_size = -1: a peer that stays away has WAL kept for it until the disk is full; "
          "set "
          "it to what the disk can spare and reload PostgreSQL (a peer that is away for longer then copies "
          "the "
          "state)");
    }
    if (settings.integer(0, 1) > kLongRetryMs) {
      lines.push_back("wal_retrieve_retry_interval = " + settings.string(0, 1) +
                      " ms: a broken link is tried again only after that time; set it to 200ms and reload "
                      "PostgreSQL");
    }
    return lines;
  });
}

// ---- the tables ----

void PostgresqlLinks::name_site(const std::string& name) {
  run([&](PgConnection& session) {
    const PgResult named =
        session.exec("UPDATE isthmus.site SET name = $1 WHERE coalesce(name, '') IN ('', $1) RETURNING name",
                     PgParams().add_text(name));
    if (named.rows() == 1) return;
    const std::string has = session.exec("SELECT name FROM isthmus.site").string(0, 0);
    throw LinkError(description_ + ": this is the database of the site '" + has + "' and not of '" + name +
                    "': correct --site or the address");
  });
}

/// $1 to $12, in the order of the columns.
PgParams params_of(const PeerRow& peer) {
  PgParams params;
  params.add_text(peer.name).add(peer.id).add_text(peer.conninfo).add_text(peer.slot);
  params.add_text(peer.state).add_text(peer.detail).add(peer.since_ms).add(peer.clock_offset_ms);
  params.add(peer.lag_ms).add(static_cast<std::int64_t>(peer.lag_rows));
  params.add(static_cast<std::int64_t>(peer.slot_bytes)).add_text(peer.slot_state);
  return params;
}

void PostgresqlLinks::put_peer(const PeerRow& peer) {
  run([&](PgConnection& session) {
    session.exec(
        "INSERT INTO isthmus.peer AS p (name, id, conninfo, slot, state, detail, since, clock_offset_ms, "
        "lag_ms, "
        "lag_rows, slot_bytes, slot_state) VALUES ($1, $2, $3, $4, $5, $6, to_timestamp($7 / 1000.0), $8, "
        "$9, "
        "$10, $11, $12) ON CONFLICT (name) DO UPDATE SET id = excluded.id, conninfo = excluded.conninfo, "
        "slot = "
        "excluded.slot, state = excluded.state, detail = excluded.detail, since = excluded.since, "
        "clock_offset_ms = excluded.clock_offset_ms, lag_ms = excluded.lag_ms, lag_rows = excluded.lag_rows, "
        "slot_bytes = excluded.slot_bytes, slot_state = excluded.slot_state "
        "WHERE p IS DISTINCT FROM excluded",
        params_of(peer));
  });
}

bool PostgresqlLinks::update_peer(const PeerRow& peer) {
  return run([&](PgConnection& session) {
    const PgResult updated = session.exec(
        "UPDATE isthmus.peer SET id = $2, slot = $4, state = $5, detail = $6, since = to_timestamp($7 / "
        "1000.0), clock_offset_ms = $8, lag_ms = $9, lag_rows = $10, slot_bytes = $11, slot_state = $12 "
        "WHERE name = $1 AND conninfo = $3 AND id IN (0, $2)",
        params_of(peer));
    return updated.affected() != 0;
  });
}

void PostgresqlLinks::let_go(PgConnection& session, const PeerRow& peer) {
  if (peer.id == 0) return;
  drop_link(session, peer.id);
  drop_kept_slots(session, peer.id);
  session.exec("DELETE FROM isthmus.frontier WHERE site = $1 OR of_site = $1", PgParams().add(peer.id));
  session.exec("UPDATE isthmus.peer SET slot = '' WHERE name <> $1", PgParams().add_text(peer.name));
  connections_.erase(peer.id);
}

void PostgresqlLinks::forget_peer(const PeerRow& peer) {
  run([&](PgConnection& session) {
    let_go(session, peer);
    session.exec("DELETE FROM isthmus.peer WHERE name = $1", PgParams().add_text(peer.name));
    // Once more: a link that was just being made may have found its row still there.
    if (peer.id != 0) drop_link(session, peer.id);
  });
}

void PostgresqlLinks::append(const RowBatch& rows, OriginId lease) {
  if (rows.empty()) return;
  run([&](PgConnection& session) {
    write_under_lease(session, lease, [&] { copy_rows(session, kLogTable, rows, "", false, buffer_); });
  });
}

// ---- subscriptions ----

std::map<SiteId, Subscription> PostgresqlLinks::subscriptions() {
  return run([](PgConnection& session) {
    // A worker that has received nothing may still be trying to connect.
    const PgResult rows = session.exec(
        "SELECT s.subname, s.subslotname, s.subenabled, coalesce(w.pid IS NOT NULL AND w.received_lsn IS NOT "
        "NULL, false), w.received_lsn FROM pg_subscription s LEFT JOIN pg_stat_subscription w ON w.subid = "
        "s.oid "
        "AND w.relid IS NULL AND w.pid IS NOT NULL WHERE starts_with(s.subname, 'isthmus_link_') AND "
        "s.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())");
    std::map<SiteId, Subscription> found;
    for (int i = 0; i < rows.rows(); ++i) {
      Subscription& of = found[site_of(rows.bytes(i, 0))];
      of.slot = rows.string(i, 1);
      of.enabled = rows.boolean(i, 2);
      of.applying = of.applying || rows.boolean(i, 3);
      of.received = std::max(of.received, parse_lsn(rows.bytes(i, 4)));
    }
    found.erase(0);
    return found;
  });
}

void PostgresqlLinks::create_subscription(const PeerRow& peer, const std::string& slot) {
  const std::string connection = link_conninfo(peer.conninfo);
  run([&](PgConnection& session) {
    if (has_admin_function(session)) {
      session.exec("SELECT isthmus_admin.create_subscription($1, $2, $3)",
                   PgParams().add_text(subscription_name(peer.id)).add_text(connection).add_text(slot));
      connections_[peer.id] = connection;
      return;
    }
    session.exec("CREATE SUBSCRIPTION " + subscription_name(peer.id) + " CONNECTION " +
                 session.literal(connection) + " PUBLICATION " + kLinkPublication + " WITH (slot_name = '" +
                 slot +
                 "', create_slot = false, copy_data = false, binary = true, streaming = on, "
                 "synchronous_commit = on, enabled = true)");
    connections_[peer.id] = connection;
  });
}

void PostgresqlLinks::update_subscription(const PeerRow& peer, bool far_behind) {
  const std::string connection = link_conninfo(peer.conninfo);
  const std::string name = subscription_name(peer.id);
  const std::string commit = far_behind ? "off" : "on";
  run([&](PgConnection& session) {
    // Only superusers may read connection strings. Others remember what they said, and say it once more after
    // a restart.
    const bool readable =
        session.exec("SELECT has_column_privilege('pg_subscription', 'subconninfo', 'SELECT')").boolean(0, 0);
    const PgResult now =
        session.exec(std::string("SELECT subenabled, subsynccommit, ") + (readable ? "subconninfo" : "NULL") +
                     " FROM pg_subscription WHERE subname = '" + name +
                     "' AND subdbid = (SELECT oid FROM pg_database WHERE datname = "
                     "current_database())");
    if (now.rows() == 0) return;
    if ((readable ? now.string(0, 2) : connections_[peer.id]) != connection) {
      session.exec("ALTER SUBSCRIPTION " + name + " CONNECTION " + session.literal(connection));
    }
    connections_[peer.id] = connection;
    // The worker takes this up where it is, without a new connection.
    if (now.string(0, 1) != commit)
      session.exec("ALTER SUBSCRIPTION " + name + " SET (synchronous_commit = " + commit + ")");
    if (!now.boolean(0, 0)) session.exec("ALTER SUBSCRIPTION " + name + " ENABLE");
  });
}

/// Without its slot, which needs no connection to the peer.
void PostgresqlLinks::drop_link(PgConnection& session, SiteId peer) {
  const std::string name = subscription_name(peer);
  const PgResult found = session.exec("SELECT FROM pg_subscription WHERE subname = '" + name +
                                      "' AND subdbid = (SELECT oid FROM pg_database WHERE datname = "
                                      "current_database())");
  if (found.rows() == 0) return;
  session.exec("ALTER SUBSCRIPTION " + name + " DISABLE");
  session.exec("ALTER SUBSCRIPTION " + name + " SET (slot_name = NONE)");
  session.exec("DROP SUBSCRIPTION " + name);
}

// ---- the slots that peers have here ----

std::map<SiteId, Links::KeptSlot> PostgresqlLinks::kept_slots() {
  return run([](PgConnection& session) {
    const PgResult rows = session.exec(
        "SELECT slot_name, coalesce(wal_status, ''), coalesce((pg_current_wal_lsn() - restart_lsn)::bigint, "
        "0), active, coalesce((pg_current_wal_lsn() - confirmed_flush_lsn)::bigint, 0) FROM "
        "pg_replication_slots WHERE starts_with(slot_name, 'isthmus_link_') AND database = "
        "current_database() ORDER BY active");
    std::map<SiteId, KeptSlot> slots;
    for (int i = 0; i < rows.rows(); ++i) {
      KeptSlot& of = slots[site_of(rows.bytes(i, 0))];
      // The one in use says the state, and all together keep what the oldest of them keeps.
      of.state = rows.string(i, 1);
      of.bytes =
          std::max(of.bytes, static_cast<std::uint64_t>(std::max<std::int64_t>(rows.integer(i, 2), 0)));
      of.active = rows.boolean(i, 3);
      of.behind = static_cast<std::uint64_t>(std::max<std::int64_t>(rows.integer(i, 4), 0));
    }
    slots.erase(0);
    return slots;
  });
}

void PostgresqlLinks::drop_kept_slots(PgConnection& session, SiteId peer) {
  const Clock::time_point deadline = Clock::now() + kEndPatience;
  for (;;) {
    const PgResult slots = session.exec(
        "SELECT slot_name, pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE "
        "starts_with(slot_name, '" +
        link_slot_prefix(peer) + "') AND database = current_database()");
    if (slots.rows() == 0) return;
    try {
      for (int i = 0; i < slots.rows(); ++i) {
        session.exec("SELECT pg_drop_replication_slot('" + slots.string(i, 0) + "')");
      }
    } catch (const PgError& error) {
      const bool passing = error.sqlstate == kObjectInUse || error.sqlstate == kUndefinedObject;
      if (!passing || Clock::now() >= deadline) throw;
      ::poll(nullptr, 0, kPauseMs);
    }
  }
}

bool names_several_hosts(const std::string& conninfo) {
  const std::unique_ptr<PQconninfoOption, void (*)(PQconninfoOption*)> list(
      PQconninfoParse(conninfo.c_str(), nullptr), &PQconninfoFree);
  for (const PQconninfoOption* at = list.get(); at != nullptr && at->keyword != nullptr; ++at) {
    if (std::string_view(at->keyword) == "host" && at->val != nullptr)
      return std::string_view(at->val).find(',') != std::string_view::npos;
  }
  return false;
}

}  // namespace

std::string link_conninfo(const std::string& conninfo) {
  std::vector<std::pair<const char*, const char*>> defaults(kLinkDefaults.begin(), kLinkDefaults.end());
  // As our own sessions have it: the slot is at the host that takes writes.
  if (names_several_hosts(conninfo)) defaults.emplace_back("target_session_attrs", "read-write");
  try {
    return complete_conninfo(conninfo, defaults);
  } catch (const PgError& error) {
    throw LinkError(error.what());
  }
}

std::unique_ptr<Links> open_postgresql_links(const std::string& conninfo, SiteId site,
                                             const std::atomic<bool>* give_up) {
  return std::make_unique<PostgresqlLinks>(conninfo, site, give_up);
}

std::vector<PeerRow> read_peers(PgConnection& connection) {
  std::vector<PeerRow> peers;
  const PgResult rows = connection.exec(
      "SELECT name, id, conninfo, slot, state, detail, (extract(epoch FROM since) * 1000)::bigint, "
      "clock_offset_ms, lag_ms, lag_rows, slot_bytes, slot_state FROM isthmus.peer ORDER BY name");
  for (int i = 0; i < rows.rows(); ++i) {
    PeerRow& peer = peers.emplace_back();
    peer.name = rows.string(i, 0);
    peer.id = rows.integer(i, 1);
    peer.conninfo = rows.string(i, 2);
    peer.slot = rows.string(i, 3);
    peer.state = rows.string(i, 4);
    peer.detail = rows.string(i, 5);
    peer.since_ms = rows.integer(i, 6);
    peer.clock_offset_ms = rows.integer(i, 7);
    peer.lag_ms = rows.integer(i, 8);
    peer.lag_rows = static_cast<std::uint64_t>(rows.integer(i, 9));
    peer.slot_bytes = static_cast<std::uint64_t>(rows.integer(i, 10));
    peer.slot_state = rows.string(i, 11);
  }
  return peers;
}

}  // namespace isthmus::backend

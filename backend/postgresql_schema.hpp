// The schema `isthmus` in a PostgreSQL database: its tables, and whether a database can carry them at all.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "backend/log.hpp"
#include "backend/postgresql_connection.hpp"

namespace isthmus::backend {

/// The newest schema version that this program knows.
inline constexpr std::int64_t kPostgresqlSchemaVersion = 4;

/// What the feed reads. Created once, before any slot, and never dropped: see ARCHITECTURE.md.
inline constexpr const char* kPublication = "isthmus_feed";
/// What the feed of the writer reads (FeedScope::others).
inline constexpr const char* kWriterPublication = "isthmus_feed_of_writer";
/// What other sites subscribe to: the rows of this site, in these columns of the log. `copied`, which is
/// false in all of them, too: what is left out PostgreSQL fills in there, and it plans a default for each
/// row.
inline constexpr const char* kLinkPublication = "isthmus_link";
inline constexpr const char* kLinkColumns =
    "site, origin, seq, version, db, kind, group_end, key, field, expire_at, sent_at, event, copied, "
    "base_version, base_site, counter, total, value";

/// Advisory locks are numbers that all of a database share: "Isthmus" in ASCII, and a last byte of ours.
inline constexpr std::int64_t kLeaseLock = 0x49737468'6d757301;
inline constexpr std::int64_t kSchemaLock = 0x49737468'6d757302;
inline constexpr std::int64_t kPartitionLock = 0x49737468'6d757303;

/// An expression for the part of a key or field that is in the unique indexes: PostgreSQL's index entries
/// are at most 2,704 bytes, and Redis's keys may be long. Up to 1,024 bytes it is the whole name; else its
/// first 1,000 and a digest of it, which together are longer than that, so that no short name is equal to it.
std::string index_part(std::string_view column);

/// A site id as it is in the names of slots and subscriptions.
std::string site_hex(SiteId site);
/// The name of the permanent slot of a site.
std::string permanent_slot(SiteId site);

/// Checks that the database can carry the schema, with this role: the version of the server, `wal_level`,
/// slots, walsenders, rights. Throws OpenError with the remedy, one line.
void check_server(PgConnection& connection);

/// The version of the schema in the database; 0 if there is none. Throws OpenError if the schema is not ours,
/// PgError.
std::int64_t schema_version(PgConnection& connection);

/// Creates the schema, or brings it up to date, in one transaction; at most one session at a time. Throws
/// OpenError when a newer Isthmus has made it, and then touches nothing; PgError.
void create_schema(PgConnection& connection);

/// How long a partition of the log is, for a retention.
std::chrono::seconds partition_width(std::chrono::seconds retention);
/// Makes the partitions of the log for now and some time ahead, unless another session is doing it. Returns
/// how many. Waits for no lock longer than 100 ms. Throws PgError.
int make_partitions(PgConnection& connection, std::chrono::seconds width);

/// A partition of the log.
struct Partition {
  std::string table;               ///< as SQL names it; empty: none is there
  std::chrono::milliseconds left;  ///< how long from now it takes rows
};
/// The one that takes what is written now. Throws PgError.
Partition current_partition(PgConnection& connection);

}  // namespace isthmus::backend

// The checkpoint in PostgreSQL: the tables entry, field and progress, written under a lease.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "backend/log.hpp"
#include "backend/postgresql_connection.hpp"

namespace isthmus::backend {

/// The lease under which the checkpoint was to be written is no longer the site's.
struct LeaseChanged : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Runs `body` in a transaction that begins only if `lease` is the site's lease, which then cannot change
/// before its end. Throws LeaseChanged, PgError; then nothing of it happened (or, if the connection is lost,
/// that is unknown).
void write_under_lease(PgConnection& connection, OriginId lease, const std::function<void()>& body);

/// Writes a piece of the checkpoint, inside a transaction. Of each register of a key the higher (version,
/// site) stays; what would not change is not touched. However large the piece, each of its statements is
/// bounded. Throws PgError.
void put_chunk(PgConnection& connection, const CheckpointChunk& chunk);

/// How far the checkpoint has followed a flush of a database: first through the fields, then the keys.
struct FlushProgress {
  std::uint8_t db = 0;
  Version version = 0;
  SiteId site = 0;
  bool fields_done = false;
  /// The first that nobody has looked at, as the indexes have it (`index_part`).
  std::string key, field;
};

/// Looks at some fields or keys and deletes what the flush covers, inside a transaction; `progress` says
/// where to go on. False when the end was reached. Throws PgError.
bool forget_some_flushed(PgConnection& connection, FlushProgress& progress);

/// The sites of the origins of `vector` of which the progress says nothing, as the log behind the checkpoint
/// tells: by their rows, or by a row of kind reach that names them. 0 where it tells nothing. PostgreSQL may
/// keep silent for long while it reads all that is behind the checkpoint. Throws PgError.
std::map<OriginId, SiteId> find_sites(PgConnection& connection, const Vector& vector);

/// Records that the checkpoint covers `mark.vector`, and the rest of the mark, inside a transaction: flushes
/// replace those that are there, of frontiers the higher one stays. `sites_of` is what find_sites told of the
/// vector. Throws PgError.
void put_mark(PgConnection& connection, const CheckpointMark& mark,
              const std::map<OriginId, SiteId>& sites_of);

/// Reads the vector of the checkpoint and the rows of the log that it does not cover, without their values,
/// per origin in the order of seq. PostgreSQL may keep silent for long while it sorts them. Throws PgError.
void read_uncovered_rows(PgConnection& connection, LoadSink& sink);

}  // namespace isthmus::backend

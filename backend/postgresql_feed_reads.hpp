// What a feed reads from the tables of a PostgreSQL log: the checkpoint, the log behind it, the rows that a
// server has missed, the inbox. Each read is one snapshot.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "backend/postgresql_connection.hpp"
#include "backend/shared_log.hpp"

namespace isthmus::backend {

/// How far the database has each origin, by its checkpoint and the log behind it. Throws PgError.
Reaches read_reaches(PgConnection& connection);

/// What the checkpoint's mark says that the sites have folded.
std::vector<StoredFrontier> read_frontiers(PgConnection& connection);

/// Reads through an ordinary session, which the owner keeps alive and leaves to this object alone. All
/// functions throw PgError; after one the session is good for nothing but its end, for it may be inside a
/// COPY.
class FeedReads {
 public:
  explicit FeedReads(PgConnection& connection);

  /// As Feed::read_state, read_missing, last_seqs, newest_lease and read_inbox.
  void read_state(LoadSink& sink);
  /// The same without messages, for another site; fills `reaches` in the same snapshot.
  void read_state_and_reaches(LoadSink& sink, Reaches& reaches);
  /// A site's messages that were sent at `sent_since` (milliseconds since the Unix epoch) or later, origin by
  /// origin in the order of their seq.
  void read_messages(SiteId site, std::int64_t sent_since, LoadSink& sink);
  /// The rows of an origin with from <= seq <= to in one snapshot; false, and nothing is handed out, if the
  /// log lacks some of them.
  bool read_rows(OriginId origin, Seq from, Seq to, LoadSink& sink);
  bool read_missing(const Vector& known, FeedSink& sink);
  const Vector& last_seqs() const { return last_seqs_; }
  const LeaseRow& newest_lease() const { return newest_lease_; }
  InboxWindow read_inbox();

 private:
  struct Progress {
    Seq seq = 0;  // up to here in the checkpoint
    Seq cut = 0;  // up to here perhaps not in the log any more
    SiteId site = 0;
  };
  enum class Messages : std::uint8_t { whole, without_value, none };
  /// What the log holds of one origin beyond what is known of it.
  struct Beyond {
    Seq first = 0;  // the lowest such seq
    std::string arrived;
    OriginId origin = 0;
  };

  void read_all(LoadSink& sink, bool with_messages);
  void begin_snapshot();
  void begin_state();
  void end_snapshot();
  void read_lease();
  void read_progress();
  void read_mark(LoadSink& sink);
  void read_keys(LoadSink& sink);
  void read_fields(LoadSink& sink);
  std::vector<Beyond> look_beyond(const Vector& known, const std::string& since);
  std::string since(const Vector& known);
  void read_log(const Vector& known, const std::string& since, const std::vector<Beyond>& beyond,
                Messages messages, LoadSink* load, FeedSink* feed);

  PgConnection& connection_;
  std::map<OriginId, Progress> progress_;
  std::string covered_from_;  // a timestamptz as text: what arrived before is in the checkpoint
  Vector last_seqs_;
  std::map<OriginId, SiteId> sites_;  // of the origins in last_seqs_, 0 if nobody knows
  LeaseRow newest_lease_;
};

}  // namespace isthmus::backend

// Copying the whole state of a peer: for a new link, for one that has lost rows which the peer's log does not
// have any more, and for what this site itself has lost. PostgreSQL reports neither the loss nor its extent,
// so everything is compared.
#include <algorithm>
#include <limits>

#include "src/keyspace/difference.hpp"
#include "src/keyspace/dots.hpp"
#include "src/observe/logging.hpp"
#include "src/site/link.hpp"
#include "src/site/state_loader.hpp"

namespace isthmus {
namespace {

using backend::Row;
using backend::RowKind;
using backend::SiteId;
using backend::Version;
using std::chrono::seconds;

constexpr seconds kProgress{5};
// A copy is for nothing if the subscription cannot be made: the next one waits, and each longer.
constexpr std::chrono::milliseconds kFirstWait{1000}, kLongestWait{60'000};
/// Wins over every site at the same version: a deletion that nobody wrote, but that must have been.
constexpr SiteId kNobody = std::numeric_limits<SiteId>::max();

Version covered_of(const Frontier& frontier, SiteId site) {
  const auto it = frontier.find(site);
  return it == frontier.end() ? 0 : it->second;
}

std::vector<std::pair<std::uint8_t, std::string>> keys_of(Keyspace& keyspace, std::size_t shard) {
  std::vector<std::pair<std::uint8_t, std::string>> keys;
  for (std::size_t db = 0; db < kDatabaseCount; ++db) {
    keyspace.shards()[shard].tables[db].for_each([&](const Node& node) {
      keys.emplace_back(static_cast<std::uint8_t>(db), std::string(node.name()));
    });
  }
  return keys;
}

/// The last seq of each origin.
using Seqs = std::map<std::int64_t, std::uint64_t>;

Seqs reach_of(const backend::Reaches& reaches, SiteId site) {
  Seqs last;
  for (const auto& [origin, reach] : reaches) {
    if (reach.site == site) last[origin] = reach.last;
  }
  return last;
}

// Ends the freeze however the copy ends.
class Frozen {
 public:
  Frozen(Freeze& freeze, const std::atomic<bool>& give_up)
      : freeze_(freeze), frontier_(freeze.begin(give_up)) {}
  ~Frozen() { freeze_.end(); }
  Frozen(const Frozen&) = delete;
  Frozen& operator=(const Frozen&) = delete;
  const Frontier& frontier() const { return frontier_; }

 private:
  Freeze& freeze_;
  const Frontier frontier_;
};

// The state of a peer, and what of it goes into our log.
class PeerState {
 public:
  PeerState(const LinkParts& parts, SiteId peer, bool own_rows)
      : parts_(parts), peer_(peer), own_rows_(own_rows), reach_(peer) {
    state_.set_site(parts.site.log().site());
    state_.set_hash_limits(parts.keyspace.hash_limits());
    state_.set_linked(true);
    state_.set_stable(0);
  }

  void read(backend::Peer& from) {
    StateLoader loader(state_, parts_.clock, reach_);
    backend::Reaches reaches;
    from.read_state(loader, reaches);
    keys_ = loader.keys() + loader.rows();
  }

  // What this site's own frontier covers is here already, or was deleted. So are its own rows.
  void copy(const Frontier& known, CopiedRows& rows, const std::function<void(std::uint64_t)>& progress) {
    for (std::size_t shard = 0; shard < kShards; ++shard) {
      for (const auto& [db, name] : keys_of(state_, shard)) copy_key(Key(db, name), known, rows);
      progress(shard + 1);
    }
    for (const backend::StoredFlush& flush : state_.stored_flushes()) {
      if (flush.site == parts_.site.log().site() && !own_rows_) continue;
      Row row;
      row.kind = RowKind::flush;
      row.db = flush.db;
      row.version = flush.version;
      row.site = flush.site;
      rows.add(row);
    }
  }

  // What the peer lacks although it has folded it was deleted there, so long ago that it has forgotten that.
  void delete_what_it_lacks(CopiedRows& rows, const std::function<void()>& check) {
    for (std::size_t shard = 0; shard < kShards; ++shard) {
      check();
      std::vector<std::pair<std::uint8_t, std::string>> keys;
      {
        const std::lock_guard lock(parts_.keyspace.shards()[shard].mutex);
        keys = keys_of(parts_.keyspace, shard);
      }
      for (const auto& [db, name] : keys) delete_if_lacking(Key(db, name), rows);
    }
  }

  // What was acknowledged there while there was no link, as far as it is young enough to be pushed: with
  // their own numbers, so that whoever has had them drops them. What is behind `until` the stream brings.
  void copy_messages(backend::Peer& from, const Seqs& until, CopiedRows& rows) {
    class Sink final : public backend::LoadSink {
     public:
      Sink(const FeedReader& feed, const Seqs& until, CopiedRows& rows)
          : feed_(feed), until_(until), rows_(rows) {}
      void key(const backend::StoredKey&) override {}
      void field(const backend::StoredField&) override {}
      void row(const Row& row) override {
        const auto last = until_.find(row.origin);
        if (last == until_.end() || row.seq > last->second || row.seq <= feed_.last(row.origin)) return;
        rows_.add_message(row);
      }

     private:
      const FeedReader& feed_;
      const Seqs& until_;
      CopiedRows& rows_;
    };
    Sink sink(parts_.feed, until, rows);
    from.read_messages(parts_.feed.fresh_since_ms(peer_), sink);
  }

  Version frontier() const { return std::max<Version>(reach_.said(peer_, peer_), 1); }
  /// Whether it had writes of its own for us.
  bool brought_writes() const { return brought_writes_; }
  std::uint64_t size() const { return keys_; }

 private:
  void copy_key(const Key& key, const Frontier& known, CopiedRows& rows) {
    backend::RowBatch batch;
    copy_rows(state_, key, [&](const Row& row) {
      const bool own = row.site == parts_.site.log().site();
      // That an add was taken back has the version of the add, which says nothing of who knows it.
      if (row.kind == RowKind::srem || (own ? own_rows_ : row.version > covered_of(known, row.site)))
        batch.append(row);
      brought_writes_ |= row.site == peer_ && row.version > covered_of(known, peer_);
    });
    for (std::size_t i = 0; i < batch.size(); ++i) {
      Row row = batch[i];
      row.group_end = i + 1 == batch.size();
      rows.add(row);
    }
  }

  void delete_if_lacking(const Key& key, CopiedRows& rows) {
    const Node* theirs = state_.find_any(key);
    if (theirs != nullptr) take_back_deadline(key, *theirs, rows);
    if (theirs != nullptr && !theirs->has_fields()) return;
    backend::RowBatch mine;
    {
      const std::lock_guard lock(parts_.keyspace.shard(key).mutex);
      copy_rows(parts_.keyspace, key, [&](const Row& row) { mine.append(row); });
    }
    for (std::size_t i = 0; i < mine.size(); ++i) {
      const Row row = mine[i];
      const bool is_string = row.kind == RowKind::update || row.kind == RowKind::incr;
      const bool is_field = row.kind == RowKind::hset || row.kind == RowKind::hincr;
      if (row.kind == RowKind::sadd) remove_if_lacking(row, theirs, rows);
      if (!is_string && !is_field) continue;
      if (is_string && theirs != nullptr) continue;
      const Version version = backend::is_count(row.kind) ? row.count.base_version : row.version;
      if (row.version > reach_.said(peer_, row.site)) continue;
      if (is_field && theirs != nullptr && theirs->is_hash() && hash_find_any(*theirs, row.field)) continue;
      if (is_field && theirs != nullptr && theirs->registers().cut_version >= version) continue;
      Row gone;
      gone.kind = is_string ? RowKind::del : RowKind::hdel;
      gone.db = key.db;
      gone.key = key.name;
      gone.field = row.field;
      gone.version = std::max(version, row.version);
      gone.site = kNobody;
      rows.add(gone);
      if (is_string) rows.add(deadline_of_copied(gone));
    }
  }

  // The peer has seen our deadline of the key, has the key, and knows of no deadline: it was taken back.
  void take_back_deadline(const Key& key, const Node& theirs, CopiedRows& rows) {
    if (!has_content(theirs) || theirs.registers().expire_version != 0) return;
    Registers mine;
    SiteId site = 0;
    {
      const std::lock_guard lock(parts_.keyspace.shard(key).mutex);
      if (const Node* node = parts_.keyspace.find_any(key)) mine = node->registers();
      site = parts_.keyspace.site_id(mine.expire_site);
    }
    if (mine.deadline == kNoDeadline || mine.expire_version > reach_.said(peer_, site)) return;
    Row none;
    none.kind = RowKind::expire;
    none.db = key.db;
    none.key = key.name;
    none.version = mine.expire_version;
    none.site = kNobody;
    rows.add(none);
  }

  // The same for one add of a member.
  void remove_if_lacking(const Row& added, const Node* theirs, CopiedRows& rows) {
    if (added.version > reach_.said(peer_, added.site)) return;
    const bool is_set = theirs != nullptr && theirs->is_set();
    const std::optional<FieldView> known = is_set ? hash_find_any(*theirs, added.field) : std::nullopt;
    if (known) {
      for (const Dot& dot : Dots(state_, *known)) {
        if (dot.at.site == added.site && dot.at.version >= added.version) return;
      }
    }
    if (theirs != nullptr && theirs->registers().cut_version >= added.version) return;
    Row gone;
    gone.kind = RowKind::srem;
    gone.db = added.db;
    gone.key = added.key;
    gone.field = added.field;
    gone.count = {.base_version = added.version, .base_site = added.site};
    gone.version = added.version;
    gone.site = kNobody;
    rows.add(gone);
  }

  LinkParts parts_;
  const SiteId peer_;
  const bool own_rows_;
  Keyspace state_;
  Reach reach_;
  std::uint64_t keys_ = 0;
  bool brought_writes_ = false;
};

}  // namespace

// The slot first, so that what is committed after the copy comes in the stream; the repeats in between are
// dropped by their seq.
void Link::copy_and_link(const std::string& why) {
  // Else a copy of everything would be for nothing, and PostgreSQL log the refused statement, with the peer's
  // connection string.
  if (const auto rights = links_->missing_rights()) throw backend::LinkError(*rights);
  begin_copy(why);
  // Else a slot has kept what the peer has written, and no deletion that this must meet has been forgotten.
  const bool joins = row_.slot.empty();
  // Whatever breaks off before there is a subscription is made again for want of one.
  copied_at_ = parts_.freeze.returns();
  links_->drop_subscription(row_.id);
  peer_->drop_slots({});
  const std::string slot = peer_->create_slot();
  const Version brought = copy_state(false, [&] { start_stream(slot); });
  if (joins) joined_.store(brought);
}

// Who forgets the peer meanwhile cannot know of what is made here.
void Link::start_stream(const std::string& slot) {
  copy_wait_ = std::clamp(copy_wait_ * 2, kFirstWait, kLongestWait);
  next_copy_ = Clock::now() + copy_wait_;
  try {
    save();
    links_->create_subscription(row_, slot);
    copy_wait_ = {};
    next_copy_ = {};
    row_.slot = slot;
    save();
  } catch (const backend::LinkError&) {
    if (is_forgotten()) {
      links_->drop_subscription(row_.id);
      peer_->drop_slots({});
    }
    throw;
  }
}

// What the stream brings meanwhile is in the copy as well, or newer than it.
void Link::copy_beside_stream(const std::string& why, bool own_rows) {
  row_.slot.clear();  // until it is done, for the next writer
  begin_copy(why);
  const int returns = parts_.freeze.returns();
  copy_state(own_rows, [] {});
  copied_at_ = returns;
  row_.slot = links_->subscriptions()[row_.id].slot;
  save();
}

void Link::begin_copy(const std::string& why) {
  copy_asked_.store(false);
  say("seeding", why);
  save();
}

Version Link::copy_state(bool own_rows, const std::function<void()>& start_stream) {
  const auto begin = Clock::now();
  // Up to here the copy stands for the stream: what that brings of it is dropped, and nothing is missing
  // between the two. Rows of the state that come twice change nothing the second time.
  backend::Position end = 0;
  const Seqs until = reach_of(peer_->reaches(end), row_.id);
  const Frozen frozen(parts_.freeze, stopping_);
  PeerState state(parts_, row_.id, own_rows);
  state.read(*peer_);
  CopiedRows rows(*links_, parts_.journal.lease_stamp().lease);
  auto next_line = Clock::now() + kProgress;
  const auto check = [this] {
    if (stopping_.load()) throw backend::LinkError("the server stops");
  };
  state.copy(frozen.frontier(), rows, [&](std::uint64_t shards) {
    check();
    if (Clock::now() < next_line) return;
    next_line = Clock::now() + kProgress;
    const auto took = std::chrono::duration<double>(Clock::now() - begin).count();
    log_info("Copying the state of a peer", {{"peer", row_.name},
                                             {"rows", rows.rows()},
                                             {"rows_per_s", static_cast<std::uint64_t>(rows.rows() / took)},
                                             {"percent", shards * 100 / kShards}});
  });
  state.delete_what_it_lacks(rows, check);
  state.copy_messages(*peer_, until, rows);
  rows.finish(row_.id, until, state.frontier());
  start_stream();
  wait_for(rows.origin(), rows.rows());
  parts_.site.stats().reseeds.fetch_add(1);
  idle_since_ = Clock::now();
  log_info(
      "The state of a peer has been copied",
      {{"peer", row_.name},
       {"read", state.size()},
       {"rows", rows.rows()},
       {"took_ms", std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - begin).count()}});
  return state.brought_writes() ? state.frontier() : 0;
}

}  // namespace isthmus

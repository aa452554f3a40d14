// What a command's function gets: its arguments, its reply, its connection, and the keyspace under the right
// locks.
#pragma once

#include <charconv>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "resp/writer.hpp"
#include "src/command/client.hpp"
#include "src/command/command.hpp"
#include "src/command/services.hpp"
#include "src/pubsub/keyspace_events.hpp"

namespace isthmus {

/// Error texts that more than one command uses, byte for byte Redis 7.0's (server.c, shared.*).
namespace error {
inline constexpr std::string_view kSyntax = "ERR syntax error";
inline constexpr std::string_view kWrongType =
    "WRONGTYPE Operation against a key holding the wrong kind of value";
inline constexpr std::string_view kNotInteger = "ERR value is not an integer or out of range";
inline constexpr std::string_view kNotFloat = "ERR value is not a valid float";
inline constexpr std::string_view kNoSuchKey = "ERR no such key";
inline constexpr std::string_view kOverflow = "ERR increment or decrement would overflow";
inline constexpr std::string_view kStringTooLong =
    "ERR string exceeds maximum allowed size (proto-max-bulk-len)";
inline constexpr std::string_view kDbIndexOutOfRange = "ERR DB index is out of range";
}  // namespace error

/// The evaluation of one command or one EXEC: everything it does shares one group of effects and one gate.
/// Lives while the shard locks are held.
class Evaluation {
 public:
  Evaluation(Services& services, std::int64_t now_ms)
      : services_(services), group_(services.journal), now_ms_(now_ms) {}

  /// The locks are taken through here, so that commands inside an EXEC know which they need not take again.
  void lock(const Key& key) { locks_.lock_one(services_.keyspace.shard(key)); }
  void lock(const ShardSet& set) {
    locks_.lock(services_.keyspace.shards(), set);
    all_locked_ = set.all();
  }
  bool all_locked() const { return all_locked_; }
  /// Locks the shard and takes up to `limit` keys out whose deadline has passed, each with its event: deletes
  /// them, as the writer, or, of linked sites, only says so on this server; what had expired before
  /// `news_since_ms` is no news any more. True if more are due.
  bool expire_due(std::size_t shard_index, std::size_t limit, std::int64_t news_since_ms);

  /// The live key. Its reply waits for whatever commit the key waits for, absent or not.
  const Node* find(const Key& key) {
    touch(key);
    return services_.keyspace.find(key, now_ms_);
  }
  /// Numbers the row, appends it to the log and folds it. True if a key came to be that was not there.
  bool emit(backend::Row& row, const Key& key);
  /// Adds `by` to the key's string, which is a number or not there, by a row that other sites can add up with
  /// theirs. False, and nothing is done, if that is not possible: then the sum is to be written.
  bool count(const Key& key, std::int64_t by);
  /// The same for a field of a key that is a hash or not there.
  bool count_field(const Key& key, std::string_view field, std::int64_t by);
  /// Publishes a keyspace event, after the commit of what has been emitted.
  void notify(EventClass event_class, std::string_view event, const Key& key);
  /// The reply depends on everything there is (DBSIZE, KEYS, SCAN, …).
  void touch_all() { raise_gate(services_.journal.appended()); }
  void touch(const Key& key) { raise_gate(services_.keyspace.shard(key).gate(key.hash)); }
  void raise_gate(backend::Seq seq) {
    if (seq > gate_) gate_ = seq;
  }
  /// The reply may leave when this seq is committed. 0: at once.
  backend::Seq gate() const { return gate_; }
  std::int64_t now_ms() const { return now_ms_; }
  Journal::Group& group() { return group_; }
  /// Bytes of effects so far, against the limit of one group.
  bool fits(std::size_t more_bytes) const;

 private:
  void delete_expired(const Key& key);
  void tell_expired(const Key& key, bool is_news);
  void raise(EventClass event_class, std::string_view event, const Key& key,
             Journal::Deferral what = Journal::Deferral::effect);
  // counting.cpp
  struct Base;
  Base base_of(const Counter* counter, const Point& written, std::string_view value) const;
  Base base_of_nothing(const Point& deleted, std::uint8_t db) const;
  Base make_counted_string(const Key& key);
  Base make_counted_hash(const Key& key);
  void delete_remains(const Key& key);
  bool emit_count(backend::RowKind kind, const Key& key, std::string_view field, const Base& base,
                  const Counter* counter, std::int64_t by);
  Services& services_;
  ShardLocks locks_;  // before the group: the group ends first
  Journal::Group group_;
  std::int64_t now_ms_;
  bool all_locked_ = false;
  backend::Seq gate_ = 0;
  std::size_t emitted_bytes_ = 0;
};

/// One command being evaluated. The arguments are views that live during the call.
class Call {
 public:
  Call(Services& all_services, Client& from, const Command& which,
       std::span<const std::string_view> arguments, resp::Writer& reply_writer, Evaluation& evaluation)
      : services(all_services),
        client(from),
        command(which),
        args(arguments),
        reply(reply_writer),
        evaluation_(evaluation) {}

  Services& services;
  Client& client;
  const Command& command;
  const std::span<const std::string_view> args;  ///< args[0] is the command's name
  resp::Writer& reply;

  std::size_t argc() const { return args.size(); }
  std::int64_t now_ms() const { return evaluation_.now_ms(); }
  std::uint8_t db() const { return client.db.load(std::memory_order_relaxed); }
  Key key(std::size_t index) const { return {db(), args[index]}; }

  /// The live key, or null. Valid until the next effect.
  const Node* find(const Key& key) {
    const Node* node = evaluation_.find(key);
    count_lookup(node != nullptr);
    if (node == nullptr) evaluation_.notify(kEventKeyMiss, "keymiss", key);
    return node;
  }
  /// The live key without counting a hit or a miss (for commands that write).
  const Node* find_for_write(const Key& key) { return evaluation_.find(key); }
  /// The same, but replies with WRONGTYPE and sets `failed` if the key is of another type.
  const Node* find_string(const Key& key, bool& failed) { return typed<&Node::is_string>(find(key), failed); }
  const Node* find_hash(const Key& key, bool& failed) { return typed<&Node::is_hash>(find(key), failed); }
  const Node* find_set(const Key& key, bool& failed) { return typed<&Node::is_set>(find(key), failed); }
  const Node* find_string_for_write(const Key& key, bool& failed) {
    return typed<&Node::is_string>(find_for_write(key), failed);
  }
  const Node* find_hash_for_write(const Key& key, bool& failed) {
    return typed<&Node::is_hash>(find_for_write(key), failed);
  }
  const Node* find_set_for_write(const Key& key, bool& failed) {
    return typed<&Node::is_set>(find_for_write(key), failed);
  }

  // Effects. Views of nodes are invalid afterwards. A key that was not there raises its event `new` here.
  /// The key becomes this string, with this deadline or none.
  void set(const Key& key, std::string_view value, std::optional<std::int64_t> deadline_ms = std::nullopt);
  /// The key is a string and gets this value; its deadline stays.
  void update(const Key& key, std::string_view value, bool piecewise = false);
  /// The key's string, a number or not there, becomes `sum`, which is `by` more.
  void count(const Key& key, std::int64_t by, std::int64_t sum, bool exists);
  /// The same for a field; `creates` as for hset.
  void hcount(const Key& key, std::string_view field, std::int64_t by, std::int64_t sum, bool creates);
  /// A field of a hash. `creates` if the key is not there yet: it gets no deadline.
  void hset(const Key& key, std::string_view field, std::string_view value, bool creates);
  /// A field is deleted. The key goes with its last field.
  void hdel(const Key& key, std::string_view field);
  /// A member of a set; of one that is there already, that it has been added again. `creates` as for hset.
  void sadd(const Key& key, std::string_view member, bool creates);
  /// A member that is there is taken out: every add of it that is known here. The key goes with its last one.
  void srem(const Key& key, std::string_view member);
  void del(const Key& key);
  /// The key's deadline in milliseconds since the Unix epoch, or none.
  void expire(const Key& key, std::optional<std::int64_t> deadline_ms);
  /// Deletes all keys of a database. The command must hold all shards.
  void flush(std::uint8_t database);

  /// A keyspace event for the key (its `db` counts, not the connection's).
  void notify(EventClass event_class, std::string_view event, const Key& key) {
    evaluation_.notify(event_class, event, key);
  }

  /// Runs `visit` with that shard locked, for commands that walk the keyspace (kWalksShards).
  template <class Visit>
  void with_shard(std::size_t index, Visit&& visit) {
    if (evaluation_.all_locked()) {
      visit();
      return;
    }
    const std::lock_guard lock(services.keyspace.shards()[index].mutex);
    visit();
  }
  /// Whether effects of so many bytes may be appended; if not, the error has been replied.
  bool fits(std::size_t bytes);
  Evaluation& evaluation() { return evaluation_; }

  // Arguments. Each replies with the error and returns nothing if the text is not what it should be.
  std::optional<std::int64_t> integer(std::size_t index, std::string_view otherwise = error::kNotInteger);
  std::optional<long double> number(std::size_t index, std::string_view otherwise = error::kNotFloat);
  /// args[index] is this word, in any letter case. `word` is lower case.
  bool is(std::size_t index, std::string_view word) const;
  void wrong_arity();

 private:
  template <bool (Node::*is_type)() const>
  const Node* typed(const Node* node, bool& failed) {
    failed = node != nullptr && !(node->*is_type)();
    if (!failed) return node;
    reply.error(error::kWrongType);
    return nullptr;
  }
  void count_lookup(bool hit);
  Evaluation& evaluation_;
};

/// Redis's string2ll: a canonical decimal integer of 64 bits, nothing else ("+1", "01", " 1" and "-0" are
/// none).
std::optional<std::int64_t> parse_integer(std::string_view text);
/// What INCRBYFLOAT and HINCRBYFLOAT read: a finite or infinite long double without spaces around it, no NaN.
std::optional<long double> parse_number(std::string_view text);
/// How INCRBYFLOAT writes a number: 17 digits after the point at most, without trailing zeros (ld2string,
/// "human").
std::string number_text(long double value);
/// The text in lower case (ASCII).
std::string lower(std::string_view text);
bool equals_ignoring_case(std::string_view text, std::string_view lower_case);
/// The error of a write that would have to wait for a log which takes none.
std::string log_refuses_writes(const Journal& journal);

}  // namespace isthmus

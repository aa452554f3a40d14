#include "src/site/forward_queue.hpp"

#include <algorithm>
#include <charconv>
#include <initializer_list>
#include <utility>

#include "resp/writer.hpp"

namespace isthmus {
namespace {

constexpr std::string_view kUnreachable =
    "-CLUSTERDOWN The writer of this site cannot be reached; the command may or may not be done\r\n";
constexpr std::string_view kReplyLost =
    "-CLUSTERDOWN The command was done, but its reply was lost with the writer\r\n";
// How many former leases are remembered. An answer of an older one cannot be under way any more: its
// connection went with its lease.
constexpr std::size_t kFormerLeases = 64;
// Stands in front of the database in a row's answer; no reply begins with it.
constexpr char kDatabaseMark = '@';

void put_words(resp::Writer& out, std::initializer_list<std::string_view> words) {
  for (const std::string_view word : words) out.bulk(word);
}

std::string encode(std::uint64_t number, const ForwardRequest& request) {
  std::string bytes;
  bytes.reserve(request.args.size() + 128);
  resp::Writer out(bytes);
  out.array(6 + request.argc);
  put_words(out, {"ISTHMUS", "FORWARD", std::to_string(number), std::to_string(request.db),
                  std::to_string(request.protocol), std::to_string(request.position)});
  out.raw(request.args);
  return bytes;
}

bool is_integer(const resp::Value& value) { return value.type == resp::Value::Type::integer; }

}  // namespace

std::string row_answer(std::optional<std::uint8_t> db, std::string_view reply, std::size_t limit_bytes) {
  std::string text;
  if (db) text = kDatabaseMark + std::to_string(*db) + "\n";
  if (text.size() + reply.size() <= limit_bytes) text.append(reply);
  return text;
}

ForwardQueue::Entry* ForwardQueue::find(std::uint64_t number) {
  if (number < first_ || number - first_ >= entries_.size()) return nullptr;
  Entry& entry = entries_[number - first_];
  return entry.state == State::done ? nullptr : &entry;
}

std::uint64_t ForwardQueue::submit(const ForwardRequest& request, AnswerMailbox& mailbox,
                                   std::int64_t now_ms) {
  const std::uint64_t number = first_ + entries_.size();
  Entry& entry = entries_.emplace_back();
  entry.bytes = encode(number, request);
  entry.mailbox = &mailbox;
  entry.submitted_ms = now_ms;
  ++outstanding_;
  bytes_ += entry.bytes.size();
  if (connection_ == Connection::ready && !stale_) send(number, entry);
  return number;
}

void ForwardQueue::send(std::uint64_t number, Entry& entry) {
  output_.append(entry.bytes);
  entry.state = State::sent;
  in_flight_.push_back(number);
}

// Nothing more will be heard of it.
void ForwardQueue::finish(std::uint64_t number, Entry& entry) {
  --outstanding_;
  bytes_ -= entry.bytes.size();
  if (entry.expired) --expired_;
  if (entry.state == State::in_doubt) --in_doubt_;
  AnswerMailbox* mailbox = entry.mailbox;
  ForwardAnswer answer{number, std::move(entry.reply), entry.db};
  const bool wanted = !entry.expired;
  entry = Entry{};
  entry.state = State::done;
  while (!entries_.empty() && entries_.front().state == State::done) {
    entries_.pop_front();
    ++first_;
  }
  if (!wanted) return;
  auto it = std::find_if(released_.begin(), released_.end(),
                         [&](const Delivery& delivery) { return delivery.mailbox == mailbox; });
  if (it == released_.end()) it = released_.insert(it, Delivery{mailbox, {}});
  it->answers.push_back(std::move(answer));
}

void ForwardQueue::writer_is(const backend::LeaseRow& row) {
  if (row.lease == writer_.lease) return;
  if (writer_.lease != 0) former_.push_back(writer_.lease);
  if (former_.size() > kFormerLeases) former_.pop_front();
  writer_ = row;
  release_answered();
  // Before the peer has said of which lease it is, its address is all that is known of it. A lease that the
  // feed has not shown yet is newer than this one.
  if (connection_ == Connection::none) return;
  stale_ |= peer_lease_ != 0 ? superseded(peer_lease_) : connected_to_ != row.address;
}

bool ForwardQueue::superseded(backend::OriginId lease) const {
  return std::find(former_.begin(), former_.end(), lease) != former_.end();
}

void ForwardQueue::answered(std::uint64_t request, std::string_view row_reply) {
  Entry* entry = find(request);
  if (entry == nullptr || entry->in_log) return;
  entry->in_log = true;
  if (entry->state == State::answered) {
    in_log_.push_back(request);
    return;
  }
  if (!row_reply.empty() && row_reply.front() == kDatabaseMark) {
    const std::size_t end = row_reply.find('\n');
    std::uint8_t db = 0;
    std::from_chars(row_reply.data() + 1, row_reply.data() + std::min(end, row_reply.size()), db);
    entry->db = db;
    row_reply.remove_prefix(end == std::string_view::npos ? row_reply.size() : end + 1);
  }
  entry->reply_lost = row_reply.empty();
  entry->reply = entry->reply_lost ? kReplyLost : row_reply;
  // The whole reply may still come from the writer, if the connection is there.
  if (entry->reply_lost && entry->state == State::sent) return;
  in_log_.push_back(request);
}

void ForwardQueue::applied(backend::OriginId lease, backend::Seq seq) {
  applied_lease_ = lease;
  applied_seq_ = seq;
  for (const std::uint64_t number : std::exchange(in_log_, {})) {
    if (Entry* entry = find(number)) finish(number, *entry);
  }
  release_answered();
  if (connection_ == Connection::catching_up && caught_up()) begin();
}

// Of what was sent nobody can tell any more whether it was done, so none of it may be sent again.
void ForwardQueue::missed_rows() {
  const bool refuses = refuses_;
  const std::uint64_t begin = first_, end = first_ + entries_.size();
  for (std::uint64_t number = begin; number < end; ++number) {
    Entry* entry = find(number);
    if (entry == nullptr || entry->expired || entry->in_log) continue;
    if (entry->state == State::sent || entry->state == State::in_doubt) expire(number, *entry);
  }
  refuses_ = refuses;
}

bool ForwardQueue::is_applied(const Entry& entry) const {
  if (entry.seq == 0 || superseded(entry.lease)) return true;
  return entry.lease == applied_lease_ && entry.seq <= applied_seq_;
}

void ForwardQueue::release_answered() {
  while (!answered_.empty()) {
    Entry* entry = find(answered_.front());
    if (entry != nullptr && !is_applied(*entry)) return;
    const std::uint64_t number = answered_.front();
    answered_.pop_front();
    if (entry != nullptr) finish(number, *entry);
  }
}

// A server that is the writer itself needs a connection (to itself) only for what it had forwarded before.
bool ForwardQueue::wants_connection() const {
  return !writer_.address.empty() && (writer_.server != self_ || outstanding_ != 0);
}

void ForwardQueue::connected(const std::string& address, std::string_view secret) {
  connection_ = Connection::greeting;
  connected_to_ = address;
  stale_ = address != writer_.address;
  resp::Writer out(output_);
  out.array(5);
  put_words(out, {"ISTHMUS", "HELLO", secret, std::to_string(self_), std::to_string(++epoch_)});
}

bool ForwardQueue::received(resp::Value& value) {
  if (value.type != resp::Value::Type::array) return false;
  if (connection_ == Connection::greeting) return greeted(value);
  return connection_ == Connection::ready && take_answer(value);
}

bool ForwardQueue::greeted(const resp::Value& value) {
  if (value.items.size() != 2 || !is_integer(value.items[0]) || !is_integer(value.items[1])) return false;
  peer_lease_ = value.items[0].integer;
  peer_seq_ = static_cast<backend::Seq>(value.items[1].integer);
  if (superseded(peer_lease_)) return false;
  connection_ = Connection::catching_up;
  if (in_doubt_ == 0 || caught_up()) begin();
  return true;
}

bool ForwardQueue::caught_up() const { return applied_lease_ == peer_lease_ && applied_seq_ >= peer_seq_; }

// Everything that happened over former connections is known.
void ForwardQueue::begin() {
  connection_ = Connection::ready;
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    Entry& entry = entries_[i];
    if (entry.in_log || (entry.state != State::unsent && entry.state != State::in_doubt)) continue;
    if (entry.state == State::in_doubt) {
      --in_doubt_;
      ++retries_;
    }
    send(first_ + i, entry);
  }
}

bool ForwardQueue::take_answer(resp::Value& value) {
  auto& items = value.items;
  if (items.size() != 4 || !is_integer(items[0]) || !is_integer(items[1]) || !is_integer(items[2]))
    return false;
  if (items[3].type != resp::Value::Type::bulk || in_flight_.empty()) return false;
  const std::uint64_t number = in_flight_.front();
  in_flight_.pop_front();
  Entry* entry = find(number);
  if (entry == nullptr) return true;
  entry->state = State::answered;
  entry->lease = items[0].integer;
  entry->seq = static_cast<backend::Seq>(items[1].integer);
  if (items[2].integer >= 0) entry->db = static_cast<std::uint8_t>(items[2].integer);
  entry->reply = std::move(items[3].text);
  if (is_applied(*entry)) {
    finish(number, *entry);
  } else {
    answered_.push_back(number);
  }
  return true;
}

void ForwardQueue::lost(std::int64_t now_ms) {
  if (connection_ == Connection::ready) not_ready_since_ms_ = now_ms;
  connection_ = Connection::none;
  stale_ = false;
  peer_lease_ = 0;
  output_.clear();
  for (const std::uint64_t number : std::exchange(in_flight_, {})) {
    Entry* entry = find(number);
    if (entry == nullptr || entry->state != State::sent) continue;
    entry->state = State::in_doubt;
    ++in_doubt_;
    if (entry->reply_lost || entry->expired) finish(number, *entry);
  }
}

void ForwardQueue::tick(std::int64_t now_ms, std::int64_t timeout_ms) {
  const std::size_t count = entries_.size();
  const std::uint64_t begin = first_;
  for (std::uint64_t number = begin; number < begin + count; ++number) {
    Entry* entry = find(number);
    if (entry == nullptr || entry->expired) continue;
    if (now_ms - entry->submitted_ms < timeout_ms) break;  // as are all behind it
    expire(number, *entry);
  }
  const bool idle_writer = writer_.server == self_ && outstanding_ == 0;
  if (idle_writer) not_ready_since_ms_ = now_ms;
  if (idle_writer || (ready() && expired_ == 0)) {
    refuses_ = false;
  } else if (expired_ != 0 || (!ready() && now_ms - not_ready_since_ms_ >= timeout_ms)) {
    refuses_ = true;
  }
}

// The client is told that nobody knows. What is on the connection remains in the book until it is answered;
// what is not will not be sent any more.
void ForwardQueue::expire(std::uint64_t number, Entry& entry) {
  if (entry.state == State::sent || entry.state == State::answered) {
    released_.push_back({entry.mailbox, {{number, std::string(kUnreachable), std::nullopt}}});
    entry.expired = true;
    ++expired_;
    return;
  }
  refuses_ = true;
  entry.reply = kUnreachable;
  entry.db.reset();
  finish(number, entry);
}

}  // namespace isthmus

#include "src/command/random_fields.hpp"

#include <algorithm>
#include <functional>
#include <vector>

#include <boost/unordered/unordered_flat_set.hpp>

#include "src/command/random.hpp"

namespace isthmus {
namespace {

// A negative count may ask for any number of fields; Redis would go on until its memory is full.
constexpr std::size_t kMaxReplyBytes = 512 << 20;

}  // namespace

void RandomFields::reply(const Node* node, std::int64_t count) {
  if (node == nullptr || count == 0) {
    call_.reply.array(0);
  } else if (count < 0) {
    with_repetition(*node, static_cast<std::uint64_t>(-count));
  } else {
    without_repetition(*node, std::min<std::uint64_t>(static_cast<std::uint64_t>(count), hash_size(*node)));
  }
}

void RandomFields::begin(std::uint64_t count) {
  call_.reply.array(with_values_ && call_.reply.protocol() == 2 ? 2 * count : count);
}

void RandomFields::add(const FieldView& field) {
  if (with_values_ && call_.reply.protocol() > 2) call_.reply.array(2);
  call_.reply.bulk(field.name);
  if (with_values_) call_.reply.bulk(field.value);
}

// The same field may be chosen again.
void RandomFields::with_repetition(const Node& node, std::uint64_t count) {
  constexpr std::size_t kSmallestBulkBytes = 6;  // of an empty name
  std::string& out = call_.reply.out();
  const std::size_t start = out.size();
  bool too_large = count > kMaxReplyBytes / kSmallestBulkBytes;
  if (!too_large) begin(count);
  // A small hash is packed, and each look for a field walks over it.
  std::vector<FieldView> packed;
  if (!node.is_table()) hash_for_each(node, false, [&](const FieldView& field) { packed.push_back(field); });
  for (std::uint64_t i = 0; i < count && !too_large; ++i) {
    add(packed.empty() ? hash_random(node, random_bits) : packed[random_bits() % packed.size()]);
    too_large = out.size() - start > kMaxReplyBytes;
  }
  if (!too_large) return;
  out.resize(start);
  call_.reply.error("ERR value is out of range");
}

void RandomFields::without_repetition(const Node& node, std::uint64_t count) {
  begin(count);
  choose_fields(node, count, [this](const FieldView& field) { add(field); });
}

void choose_fields(const Node& node, std::uint64_t count,
                   const std::function<void(const FieldView&)>& visit) {
  const std::uint64_t size = hash_size(node);
  // Few out of a large table: ask it at random and leave out what comes again. Else a walk over all of it
  // costs less.
  if (node.is_table() && count < size / 3) {
    boost::unordered_flat_set<std::string_view> chosen;
    while (chosen.size() < count) {
      const FieldView field = hash_random(node, random_bits);
      if (chosen.insert(field.name).second) visit(field);
    }
    return;
  }
  Selection selection(size, count);
  hash_for_each(node, false, [&](const FieldView& field) {
    if (!selection.done() && selection.take(random_bits())) visit(field);
  });
}

}  // namespace isthmus

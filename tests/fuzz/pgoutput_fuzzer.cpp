// Fuzzes the decoder of the change stream with a session: CopyData messages, each behind its length in two
// bytes; and what takes its rows apart.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "backend/pgoutput.hpp"
#include "backend/row_pack.hpp"

namespace pgoutput = isthmus::backend::pgoutput;

namespace {

/// Reads every byte of a view, so that a sanitizer sees one that points elsewhere.
std::size_t sum(std::string_view view) {
  std::size_t result = 0;
  for (const char c : view) result += static_cast<unsigned char>(c);
  return result;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  pgoutput::Decoder decoder;
  pgoutput::Event event;
  std::size_t at = 0;
  while (at + 2 <= size) {
    const std::size_t wanted = static_cast<std::size_t>(data[at]) << 8U | data[at + 1];
    at += 2;
    const std::size_t length = wanted < size - at ? wanted : size - at;
    // A copy of its own, so that reading beyond the message is seen.
    const std::vector<char> message(data + at, data + at + length);
    at += length;
    pgoutput::Envelope envelope;
    if (!pgoutput::parse_envelope({message.data(), message.size()}, envelope)) continue;
    if (envelope.kind == pgoutput::Envelope::Kind::keepalive) {
      if (!envelope.data.empty()) std::abort();
      continue;
    }
    event.error.clear();
    const pgoutput::Kind kind = decoder.decode(envelope.data, event);
    if ((kind == pgoutput::Kind::malformed) == event.error.empty()) std::abort();
    if (kind != pgoutput::Kind::row) continue;
    std::size_t used = 0, bytes = 0;
    isthmus::backend::for_each_row(event.row, [&](const isthmus::backend::Row& row) {
      used += row.key.size() + row.field.size() + row.value.size() + row.event.size() + row.reply.size();
      bytes += sum(row.key) + sum(row.field) + sum(row.value) + sum(row.event) + sum(row.reply);
    });
    if (used > envelope.data.size()) std::abort();
    if (bytes == 1 && event.row.seq == 0 && event.row.site == -1) return 0;  // uses the sum
  }
  return 0;
}

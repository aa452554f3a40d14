// Whatever a client sends, and however it is cut, the request parser reads the same requests out of it.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "resp/reply_reader.hpp"
#include "resp/request_parser.hpp"

namespace {

using isthmus::resp::Limits;
using isthmus::resp::ParseStatus;
using isthmus::resp::RequestParser;
using Request = std::vector<std::string>;

void expect(bool holds, const char* what) {
  if (holds) return;
  std::cerr << "broken: " << what << '\n';
  std::abort();
}

struct Outcome {
  std::vector<Request> requests;
  std::vector<std::size_t> consumed;
  std::string error;
  bool operator==(const Outcome&) const = default;
};

struct Settings {
  Limits limits;
  bool authenticated;
};

// What a connection would read if the stream came in pieces of the sizes that `next_size` gives. Each call
// gets a buffer of its own of exactly the right size: the address sanitizer sees a read past its end, and a
// view into a buffer that is gone.
template <class NextSize>
Outcome read_in_pieces(std::string_view stream, const Settings& settings, NextSize next_size) {
  RequestParser parser;
  parser.set_limits(settings.limits);
  parser.set_authenticated(settings.authenticated);
  Outcome outcome;
  std::size_t begin = 0;
  std::size_t end = 0;
  std::unique_ptr<char[]> buffer;
  while (true) {
    const std::size_t size = end - begin;
    // NOLINTNEXTLINE(modernize-make-unique): uninitialized on purpose
    buffer.reset(new char[size]);
    std::copy_n(stream.data() + begin, size, buffer.get());
    const ParseStatus status = parser.parse({buffer.get(), size});
    if (status == ParseStatus::error) {
      outcome.error = parser.error();
      expect(outcome.error.starts_with("ERR Protocol error: "), "an error says that it is one");
      expect(outcome.error.find_first_of("\r\n") == std::string::npos, "an error is one line");
      expect(parser.parse({buffer.get(), size}) == ParseStatus::error, "an error stays");
      return outcome;
    }
    if (status == ParseStatus::request) {
      expect(parser.consumed() > 0 && parser.consumed() <= size,
             "a request takes some of the input and no more than there is");
      outcome.requests.emplace_back(parser.args().begin(), parser.args().end());
      begin += parser.consumed();
      outcome.consumed.push_back(begin);
      continue;
    }
    expect(parser.needed() == 0 || parser.needed() > size, "what is needed is more than there is");
    expect(parser.args().empty(), "no arguments without a request");
    if (end == stream.size()) return outcome;
    end += std::min(std::max<std::size_t>(next_size(), 1), stream.size() - end);
  }
}

// Requests written again as arrays read as the same requests.
void check_round_trip(const Outcome& outcome) {
  for (const Request& request : outcome.requests) {
    const std::vector<std::string_view> args(request.begin(), request.end());
    const std::string encoded = isthmus::resp::encode_request(args);
    RequestParser parser;
    expect(parser.parse(encoded) == ParseStatus::request, "an encoded request is a request");
    expect(Request(parser.args().begin(), parser.args().end()) == request,
           "an encoded request says the same");
    expect(parser.consumed() == encoded.size(), "an encoded request is read to its end");
  }
}

void check(std::string_view stream, const Settings& settings, std::uint32_t seed) {
  const Outcome whole = read_in_pieces(stream, settings, [&] { return stream.size(); });
  std::minstd_rand random(seed);
  for (const std::uint32_t longest : {1U, 7U, 64U}) {
    // Small pieces of a long stream would only cost time: each call copies what is unread.
    if (stream.size() > 4096 * std::size_t{longest}) continue;
    std::uniform_int_distribution<std::size_t> sizes(1, longest);
    const Outcome pieces = read_in_pieces(stream, settings, [&] { return sizes(random); });
    expect(pieces == whole, "pieces read as the whole");
  }
  check_round_trip(whole);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string stream(reinterpret_cast<const char*>(data), size);
  const auto seed = static_cast<std::uint32_t>(std::hash<std::string>{}(stream));
  check(stream, {Limits{}, true}, seed);
  check(stream, {Limits{}, false}, seed);
  // Limits so low that short inputs reach them.
  check(stream, {Limits{.max_bulk = 20, .max_multibulk = 5, .max_inline = 24}, true}, seed);
  return 0;
}

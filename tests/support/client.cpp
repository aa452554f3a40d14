// A connection to a server under test.
#include "tests/support/client.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <thread>
#include <utility>

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

namespace isthmus::test {
namespace {

using std::chrono::steady_clock;

bool is_message_kind(std::string_view kind) {
  return kind == "message" || kind == "pmessage" || kind == "smessage";
}

Message to_message(const Value& value, int protocol) {
  const auto wanted = protocol == 3 ? Value::Type::push : Value::Type::array;
  const auto& items = value.items;
  if (value.type != wanted || items.empty() || !is_message_kind(items[0].text) ||
      items.size() != (items[0].text == "pmessage" ? 4u : 3u))
    throw std::runtime_error("expected a pub/sub message, got " + to_text(value));
  Message message{items[0].text, "", items[items.size() - 2].text, items.back().text,
                  std::chrono::system_clock::now()};
  if (items.size() == 4) message.pattern = items[1].text;
  return message;
}

}  // namespace

std::ostream& operator<<(std::ostream& out, const Message& message) {
  return out << message.kind << ' ' << message.pattern << ' ' << message.channel << ' ' << message.payload;
}

Client::Client(int port, int protocol, int receive_buffer_bytes) : protocol_(protocol) {
  fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd_ < 0) throw std::system_error(errno, std::generic_category(), "socket");
  const int on = 1;
  ::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (receive_buffer_bytes > 0)
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer_bytes, sizeof receive_buffer_bytes);
  const timeval connect_patience{std::chrono::duration_cast<seconds>(kPatience).count(), 0};
  ::setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &connect_patience, sizeof connect_patience);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    const int error = errno;
    ::close(fd_);
    throw std::system_error(error, std::generic_category(), "connect");
  }
  begin();
}

Client::Client(Connected connected, int protocol) : fd_(connected.socket), protocol_(protocol) { begin(); }

void Client::begin() {
  ::fcntl(fd_, F_SETFL, ::fcntl(fd_, F_GETFL) | O_NONBLOCK);
  if (protocol_ == 3) {
    const auto hello = call({"HELLO", "3"});
    if (hello.type != Value::Type::map) throw std::runtime_error("HELLO 3 was answered " + to_text(hello));
  }
}

Client::~Client() { close(); }

Client::Client(Client&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      protocol_(other.protocol_),
      reader_(std::move(other.reader_)),
      pushes_(std::move(other.pushes_)) {}

Client& Client::operator=(Client&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(protocol_, other.protocol_);
  std::swap(reader_, other.reader_);
  std::swap(pushes_, other.pushes_);
  return *this;
}

void Client::close(bool abruptly) {
  if (fd_ < 0) return;
  const linger reset{1, 0};
  if (abruptly) ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
  ::close(std::exchange(fd_, -1));
}

void Client::finish_sending() { ::shutdown(fd_, SHUT_WR); }

Value Client::call(const std::vector<std::string_view>& args) {
  send_raw(resp::encode_request(args));
  return read();
}

void Client::send(std::initializer_list<std::string_view> args) { send_raw(resp::encode_request(args)); }

void Client::await(short events, Deadline deadline) const {
  const auto left = std::chrono::ceil<milliseconds>(deadline - steady_clock::now());
  pollfd wanted{fd_, events, 0};
  const int ready = ::poll(&wanted, 1, static_cast<int>(std::max<std::int64_t>(left.count(), 0)));
  if (ready == 0)
    throw TimedOut((events & POLLIN) != 0 ? "nothing came in time" : "nothing could be sent in time");
}

void Client::send_raw(std::string_view bytes, milliseconds patience) {
  const Deadline deadline = steady_clock::now() + patience;
  while (!bytes.empty()) {
    const ssize_t done = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (done > 0) {
      bytes.remove_prefix(static_cast<std::size_t>(done));
      continue;
    }
    if (errno == EPIPE || errno == ECONNRESET) throw Closed("the server closed the connection");
    if (errno != EAGAIN && errno != EINTR) throw std::system_error(errno, std::generic_category(), "send");
    await(POLLIN | POLLOUT, deadline);
    receive_ready();
  }
}

std::size_t Client::push_raw(std::string_view bytes, milliseconds patience) {
  const Deadline deadline = steady_clock::now() + patience;
  std::size_t total = 0;
  while (total < bytes.size()) {
    const ssize_t done = ::send(fd_, bytes.data() + total, bytes.size() - total, MSG_NOSIGNAL);
    if (done > 0) total += static_cast<std::size_t>(done);
    if (done > 0) continue;
    if (errno != EAGAIN && errno != EINTR) return total;
    try {
      await(POLLOUT, deadline);
    } catch (const TimedOut&) {
      return total;
    }
  }
  return total;
}

// Takes in what is there; false if nothing is.
bool Client::receive_ready() {
  std::array<char, 65536> buffer;
  const ssize_t got = ::recv(fd_, buffer.data(), buffer.size(), 0);
  if (got > 0) reader_.feed({buffer.data(), static_cast<std::size_t>(got)});
  if (got > 0) return true;
  if (got == 0 || errno == ECONNRESET || errno == EPIPE) throw Closed("the server closed the connection");
  if (errno != EAGAIN && errno != EINTR) throw std::system_error(errno, std::generic_category(), "recv");
  return false;
}

void Client::receive(Deadline deadline) {
  while (!receive_ready()) await(POLLIN, deadline);
}

std::optional<Value> Client::take() {
  Value value;
  switch (reader_.next(value)) {
    case resp::ReplyReader::Status::value:
      return value;
    case resp::ReplyReader::Status::error:
      throw std::runtime_error("not RESP: " + reader_.error());
    case resp::ReplyReader::Status::need_more:
      break;
  }
  return std::nullopt;
}

Value Client::read_any(milliseconds patience) {
  const Deadline deadline = steady_clock::now() + patience;
  if (!pushes_.empty()) {
    Value first = std::move(pushes_.front());
    pushes_.pop_front();
    return first;
  }
  while (true) {
    if (auto value = take()) return std::move(*value);
    receive(deadline);
  }
}

Value Client::read(milliseconds patience) {
  const Deadline deadline = steady_clock::now() + patience;
  while (true) {
    auto value = take();
    if (!value)
      receive(deadline);
    else if (value->type == Value::Type::push)
      pushes_.push_back(std::move(*value));
    else
      return std::move(*value);
  }
}

Message Client::next_message(milliseconds patience) { return to_message(read_any(patience), protocol_); }

std::optional<Message> Client::message_within(milliseconds patience) {
  try {
    return next_message(patience);
  } catch (const TimedOut&) {
    return std::nullopt;
  }
}

void Client::subscribe(std::string_view command, const std::vector<std::string>& names) {
  std::vector<std::string_view> args{command};
  args.insert(args.end(), names.begin(), names.end());
  send_raw(resp::encode_request(args));
  for (const auto& name : names) {
    const auto reply = read_any();
    if (reply.items.size() != 3 || reply.items[1].text != name || reply.is_error())
      throw std::runtime_error("subscribing was answered " + to_text(reply));
  }
}

bool Client::closed_within(milliseconds patience) {
  const Deadline deadline = steady_clock::now() + patience;
  std::array<char, 65536> buffer;
  while (true) {
    const ssize_t got = ::recv(fd_, buffer.data(), buffer.size(), 0);
    if (got > 0) continue;
    if (got == 0 || (errno != EAGAIN && errno != EINTR)) return true;
    try {
      await(POLLIN, deadline);
    } catch (const TimedOut&) {
      return false;
    }
  }
}

std::string show(const Value& value) { return to_text(value); }

std::string quoted(std::string_view text) {
  Value value;
  value.type = Value::Type::bulk;
  value.mark = '$';
  value.text = text;
  return to_text(value);
}

std::optional<std::string> info_field(Client& client, std::string_view section, std::string_view name) {
  const auto text = client.call({"INFO", section}).text;
  const std::string label = "\n" + std::string(name) + ":";
  const auto at = text.find(label);
  if (at == std::string::npos) return std::nullopt;
  const auto begin = at + label.size();
  return text.substr(begin, text.find('\r', begin) - begin);
}

void in_threads(int count, const std::function<void(int)>& work) {
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i)
    threads.emplace_back([&work, i] {
      try {
        work(i);
      } catch (const std::exception& error) {
        ADD_FAILURE() << "thread " << i << ": " << error.what();
      }
    });
  for (auto& thread : threads) thread.join();
}

bool eventually(const std::function<bool()>& done, milliseconds patience) {
  const auto deadline = steady_clock::now() + patience;
  while (!done()) {
    if (steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(milliseconds(5));
  }
  return true;
}

}  // namespace isthmus::test

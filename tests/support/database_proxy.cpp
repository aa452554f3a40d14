#include "tests/support/database_proxy.hpp"

#include <array>
#include <cerrno>
#include <system_error>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

namespace isthmus::test {
namespace {

// More is not held back for one direction: then its sender has to wait, as with a real network.
constexpr std::size_t kHeldBytes = std::size_t{4} << 20;

[[noreturn]] void fail(const char* what) { throw std::system_error(errno, std::generic_category(), what); }

sockaddr_in loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  return address;
}

int connect_to(int port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const sockaddr_in address = loopback(port);
  if (fd >= 0 && ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return fd;
  if (fd >= 0) ::close(fd);
  return -1;
}

}  // namespace

DatabaseProxy::DatabaseProxy(int target_port) : target_port_(target_port) {
  listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  wake_ = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  sockaddr_in address = loopback(0);
  socklen_t size = sizeof address;
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  if (listener_ < 0 || wake_ < 0 || ::bind(listener_, generic, size) != 0 || ::listen(listener_, 64) != 0 ||
      ::getsockname(listener_, generic, &size) != 0)
    fail("DatabaseProxy");
  port_ = ntohs(address.sin_port);
  thread_ = std::thread([this] { run(); });
}

DatabaseProxy::~DatabaseProxy() {
  stopping_.store(true);
  set(Mode::cut);
  thread_.join();
  ::close(listener_);
  ::close(wake_);
}

std::string DatabaseProxy::url(const std::string& database) const {
  return "postgresql://postgres@127.0.0.1:" + std::to_string(port_) + "/" + database;
}

void DatabaseProxy::set(Mode mode) {
  mode_.store(mode);
  ::eventfd_write(wake_, 1);
}

void DatabaseProxy::orphan() {
  orphaning_.store(true);
  ::eventfd_write(wake_, 1);
}

void DatabaseProxy::run() {
  while (!stopping_.load()) {
    serve();
    if (orphaning_.exchange(false)) close_clients();
  }
  close_broken(true);
  for (const int fd : orphans_) ::close(fd);
}

// One wait, and what it brought.
void DatabaseProxy::serve() {
  const bool flows = mode_.load() == Mode::open;
  std::vector<pollfd> waits = {{wake_, POLLIN, 0}, {listener_, POLLIN, 0}};
  const auto wanted = [&](const Side& reads, const Side& writes_here) {
    short events = 0;
    if (flows && writes_here.held.size() < kHeldBytes) events |= POLLIN;
    if (flows && !reads.held.empty()) events |= POLLOUT;
    return pollfd{events == 0 ? -1 : reads.fd, events, 0};
  };
  for (const Pair& pair : pairs_) {
    waits.push_back(wanted(pair.client, pair.database));
    waits.push_back(wanted(pair.database, pair.client));
  }
  if (::poll(waits.data(), waits.size(), -1) < 0 && errno != EINTR) fail("poll");
  eventfd_t ignored = 0;
  ::eventfd_read(wake_, &ignored);
  std::size_t next = 2;
  for (Pair& pair : pairs_) {
    if (waits[next++].revents != 0) move_bytes(pair, pair.client, pair.database);
    if (waits[next++].revents != 0) move_bytes(pair, pair.database, pair.client);
  }
  if (waits[1].revents != 0) take_connection();
  close_broken(mode_.load() == Mode::cut);
}

void DatabaseProxy::take_connection() {
  const int client = ::accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (client < 0) return;
  const int database = mode_.load() == Mode::cut ? -1 : connect_to(target_port_);
  if (database < 0) {
    ::close(client);
    return;
  }
  const int on = 1;
  for (const int fd : {client, database}) ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  Pair& pair = pairs_.emplace_back();
  pair.client.fd = client;
  pair.database.fd = database;
}

void DatabaseProxy::move_bytes(Pair& pair, Side& from, Side& to) {
  std::array<char, 65536> buffer;
  write_held(pair, from);
  if (to.held.size() >= kHeldBytes) return;
  const ssize_t got = ::recv(from.fd, buffer.data(), buffer.size(), MSG_DONTWAIT);
  if (got > 0) to.held.append(buffer.data(), static_cast<std::size_t>(got));
  if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) pair.broken = true;
  write_held(pair, to);
}

void DatabaseProxy::write_held(Pair& pair, Side& to) {
  if (to.held.empty()) return;
  const ssize_t put = ::send(to.fd, to.held.data(), to.held.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  if (put > 0) to.held.erase(0, static_cast<std::size_t>(put));
  if (put < 0 && errno != EAGAIN && errno != EINTR) pair.broken = true;
}

void DatabaseProxy::close_clients() {
  for (const Pair& pair : pairs_) {
    ::close(pair.client.fd);
    orphans_.push_back(pair.database.fd);
  }
  pairs_.clear();
}

void DatabaseProxy::close_broken(bool all) {
  pairs_.remove_if([all](const Pair& pair) {
    if (!all && !pair.broken) return false;
    ::close(pair.client.fd);
    ::close(pair.database.fd);
    return true;
  });
}

}  // namespace isthmus::test

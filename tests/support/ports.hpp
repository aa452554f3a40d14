// TCP ports for the servers and clusters of tests.
#pragma once

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <stdexcept>
#include <system_error>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

namespace isthmus::test {

// Below 32768, from where on the kernel gives ports away (ip_local_port_range). tests/faults/cluster.py has
// the same blocks.
inline constexpr int kFirstPort = 10'000;
inline constexpr int kPortsOfBlock = 500;
inline constexpr int kPortBlocks = 44;

/// A socket that is bound to the port of 127.0.0.1, or -1 if that is taken. Without SO_REUSEADDR, so that
/// what connections have left behind counts as well.
inline int bind_port(int port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) throw std::system_error(errno, std::generic_category(), "socket");
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return fd;
  const int error = errno;
  ::close(fd);
  if (error != EADDRINUSE) throw std::system_error(error, std::generic_category(), "bind");
  return -1;
}

/// The first port of a block that belongs to this process: it holds that port until it ends.
inline int take_port_block() {
  for (int i = 0; i < kPortBlocks; ++i) {
    const int first = kFirstPort + (::getpid() + i) % kPortBlocks * kPortsOfBlock;
    if (bind_port(first) >= 0) return first;
  }
  throw std::runtime_error("every block of ports has a process");
}

/// A TCP port of 127.0.0.1 that nobody listens on, and that nobody takes before the server begins or while
/// it begins again: neither the kernel for somebody who wants any port, nor another process of tests. Throws
/// std::runtime_error if there is none. Thread-safe.
inline int free_port() {
  static const int block = take_port_block();
  static std::atomic<unsigned> next{0};
  for (int tries = 1; tries < kPortsOfBlock; ++tries) {
    const int port = block + 1 + static_cast<int>(next++ % (kPortsOfBlock - 1));
    const int fd = bind_port(port);
    if (fd < 0) continue;
    ::close(fd);
    return port;
  }
  throw std::runtime_error("no port of the block is free");
}

}  // namespace isthmus::test

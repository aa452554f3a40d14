// Listening sockets: what the Redis port and the HTTP port have in common.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>

namespace isthmus {

/// Binds and listens; the kernel queues connections from then on. Port 0 takes any free port. Throws
/// std::runtime_error with one clear line.
boost::asio::ip::tcp::acceptor listen_on(boost::asio::io_context& context, const std::string& address,
                                         std::uint16_t port, int backlog);

/// Calls `take` for every connection until the acceptor is closed. While the process has no file descriptor
/// left, it is tried again ten times a second. The acceptor and what `take` refers to outlive the context's
/// run.
void accept_each(boost::asio::ip::tcp::acceptor& acceptor,
                 std::function<void(boost::asio::ip::tcp::socket)> take);

}  // namespace isthmus

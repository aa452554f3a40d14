// Accepts connections and hands them to the I/O threads.
#pragma once

#include <cstdint>
#include <list>
#include <string>
#include <vector>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>

#include "src/net/client_table.hpp"
#include "src/net/io_thread.hpp"

namespace isthmus {

class Listener {
 public:
  /// Binds and listens on every address; the kernel queues connections until `accept_for`. Port 0: any free
  /// port, the same for all addresses. Throws std::runtime_error with one clear line.
  /// With `tls`, which outlives it, connections speak TLS.
  Listener(boost::asio::io_context& context, const std::vector<std::string>& addresses, std::uint16_t port,
           int backlog, TlsContexts* tls = nullptr);

  std::uint16_t port() const { return port_; }
  /// Begins to accept. Who may not enter (Admission) gets Redis's error and is closed.
  void accept_for(Services& services, ClientTable& clients, std::vector<IoThread*> threads);
  void close();

 private:
  void take(boost::asio::ip::tcp::socket socket);
  IoThread& choose_thread() const;
  Admission admission_of(const boost::asio::ip::tcp::endpoint& peer) const;

  std::uint16_t port_;
  TlsContexts* tls_;
  std::list<boost::asio::ip::tcp::acceptor> acceptors_;
  Services* services_ = nullptr;
  ClientTable* clients_ = nullptr;
  std::vector<IoThread*> threads_;
};

}  // namespace isthmus

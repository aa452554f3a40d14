#include "src/net/listener.hpp"

#include <utility>

#include <netinet/tcp.h>
#include <sys/socket.h>

#include "src/net/listening.hpp"

namespace isthmus {
namespace {

using boost::asio::ip::tcp;
using boost::system::error_code;

std::string text_of(const tcp::endpoint& endpoint) {
  const std::string address = endpoint.address().to_string();
  const std::string host = endpoint.address().is_v6() ? "[" + address + "]" : address;
  return host + ":" + std::to_string(endpoint.port());
}

// TCP_NODELAY because replies are small and waited for; probes so that a dead peer is noticed.
void set_options(tcp::socket& socket, std::int64_t keepalive_s) {
  error_code ignored;
  socket.set_option(tcp::no_delay(true), ignored);
  if (keepalive_s <= 0) return;
  socket.set_option(boost::asio::socket_base::keep_alive(true), ignored);
  const int idle = static_cast<int>(keepalive_s), interval = std::max(1, idle / 3), probes = 3;
  ::setsockopt(socket.native_handle(), IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
  ::setsockopt(socket.native_handle(), IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
  ::setsockopt(socket.native_handle(), IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
}

}  // namespace

Listener::Listener(boost::asio::io_context& context, const std::vector<std::string>& addresses,
                   std::uint16_t port, int backlog)
    : port_(port) {
  for (const std::string& address : addresses) {
    acceptors_.push_back(listen_on(context, address, port_, backlog));
    port_ = acceptors_.back().local_endpoint().port();
  }
}

void Listener::accept_for(Services& services, ClientTable& clients, std::vector<IoThread*> threads) {
  services_ = &services;
  clients_ = &clients;
  threads_ = std::move(threads);
  for (tcp::acceptor& acceptor : acceptors_) {
    accept_each(acceptor, [this](tcp::socket socket) { take(std::move(socket)); });
  }
}

void Listener::close() {
  error_code ignored;
  for (tcp::acceptor& acceptor : acceptors_) acceptor.close(ignored);
}

// The first thread that has room, else the least busy one: IoThread::share_load says why they are not spread
// at once.
IoThread& Listener::choose_thread() const {
  constexpr int kRoomBelowPercent = 70;
  IoThread* coolest = threads_.front();
  for (IoThread* thread : threads_) {
    if (thread->load_percent() < kRoomBelowPercent) return *thread;
    if (thread->load_percent() < coolest->load_percent()) coolest = thread;
  }
  return *coolest;
}

void Listener::take(tcp::socket socket) {
  services_->stats.connections_received.fetch_add(1, std::memory_order_relaxed);
  // Another server of the site must get through to the writer, and shows who it is with its first request.
  constexpr std::size_t kRoomForServers = 16;
  const std::size_t most = services_->settings.maxclients.load();
  const std::size_t count = clients_->count();
  if (count >= most + (services_->site != nullptr ? kRoomForServers : 0)) {
    services_->stats.rejected_connections.fetch_add(1, std::memory_order_relaxed);
    error_code ignored;
    socket.non_blocking(true, ignored);
    socket.write_some(boost::asio::buffer("-ERR max number of clients reached\r\n", 36), ignored);
    return;
  }
  error_code error, local_error;
  const tcp::endpoint peer = socket.remote_endpoint(error);
  const tcp::endpoint local = socket.local_endpoint(local_error);
  if (error || local_error) return;  // gone already
  set_options(socket, services_->settings.tcp_keepalive_s.load());
  socket.non_blocking(true, error);
  IoThread& thread = choose_thread();
  clients_->expect();
  thread.adopt(socket.release(), text_of(peer), text_of(local), count >= most);
}

}  // namespace isthmus

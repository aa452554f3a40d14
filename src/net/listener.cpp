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
                   std::uint16_t port, int backlog, TlsContexts* tls)
    : port_(port), tls_(tls) {
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

// As Redis has it: 127.0.0.1 and ::1 are this machine, no other loopback address is.
Admission Listener::admission_of(const tcp::endpoint& peer) const {
  if (clients_->count() >= services_->settings.maxclients.load()) return Admission::full;
  const Settings& settings = services_->settings;
  if (!settings.protected_mode.load() || settings.has_password()) return Admission::everyone;
  const auto address = peer.address();
  const bool near =
      address.is_v4() ? address.to_v4() == boost::asio::ip::address_v4::loopback() : address.is_loopback();
  return near ? Admission::everyone : Admission::protected_mode;
}

void Listener::take(tcp::socket socket) {
  services_->stats.connections_received.fetch_add(1, std::memory_order_relaxed);
  error_code error, local_error;
  const tcp::endpoint peer = socket.remote_endpoint(error);
  const tcp::endpoint local = socket.local_endpoint(local_error);
  if (error || local_error) return;  // gone already
  socket.non_blocking(true, error);
  const Admission admission = admission_of(peer);
  // Another server of the site must get through to the writer, and shows who it is with its first request.
  constexpr std::size_t kRoomForServers = 16;
  const bool room = clients_->count() < services_->settings.maxclients.load() + kRoomForServers;
  const bool may_be_server = services_->site != nullptr && room;
  // Over TLS nothing can be said before the handshake.
  const bool told_later = tls_ != nullptr && admission == Admission::protected_mode;
  if (admission != Admission::everyone && !may_be_server && !told_later) {
    services_->stats.rejected_connections.fetch_add(1, std::memory_order_relaxed);
    const std::string line = "-" + std::string(refusal(admission)) + "\r\n";
    error_code ignored;
    if (tls_ == nullptr) socket.write_some(boost::asio::buffer(line), ignored);
    return;
  }
  set_options(socket, services_->settings.tcp_keepalive_s.load());
  IoThread& thread = choose_thread();
  clients_->expect();
  thread.adopt({socket.release(), text_of(peer), text_of(local), admission, tls_});
}

}  // namespace isthmus

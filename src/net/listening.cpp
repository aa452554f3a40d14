#include "src/net/listening.hpp"

#include <memory>
#include <stdexcept>
#include <utility>

#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/steady_timer.hpp>

#include "src/observe/logging.hpp"

namespace isthmus {

using boost::asio::ip::tcp;
using boost::system::error_code;

tcp::acceptor listen_on(boost::asio::io_context& context, const std::string& address, std::uint16_t port,
                        int backlog) {
  error_code error;
  tcp::resolver resolver(context);
  const auto found = resolver.resolve(address, std::to_string(port), tcp::resolver::passive, error);
  const auto check = [&] {
    if (!error) return;
    throw std::runtime_error("cannot listen on " + address + " port " + std::to_string(port) + ": " +
                             error.message());
  };
  check();
  const tcp::endpoint endpoint(found.begin()->endpoint().address(), port);
  tcp::acceptor acceptor(context);
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error && endpoint.address().is_v6()) acceptor.set_option(boost::asio::ip::v6_only(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(backlog, error);
  check();
  return acceptor;
}

void accept_each(tcp::acceptor& acceptor, std::function<void(tcp::socket)> take) {
  acceptor.async_accept([&acceptor, take = std::move(take)](const error_code& error, tcp::socket socket) {
    if (!acceptor.is_open()) return;
    if (!error) {
      take(std::move(socket));
    } else if (error != boost::asio::error::connection_aborted) {
      // Out of descriptors, buffers or memory: what is asked for at once fails at once.
      log_warning("A connection cannot be accepted", {{"cause", error.message()}});
      auto timer = std::make_shared<boost::asio::steady_timer>(acceptor.get_executor(),
                                                               std::chrono::milliseconds(100));
      timer->async_wait([&acceptor, take, timer](const error_code&) {
        if (acceptor.is_open()) accept_each(acceptor, take);
      });
      return;
    }
    accept_each(acceptor, take);
  });
}

}  // namespace isthmus

#include "tests/support/http_client.hpp"

#include <regex>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>

namespace isthmus::test {

namespace http = boost::beast::http;
using boost::asio::ip::tcp;

HttpAnswer http_get(int port, const std::string& path, const std::string& method) {
  boost::asio::io_context context;
  tcp::socket socket(context);
  socket.connect({boost::asio::ip::make_address("127.0.0.1"), static_cast<std::uint16_t>(port)});
  http::request<http::string_body> request;
  request.method_string(method);
  request.target(path);
  request.version(11);
  request.set(http::field::host, "localhost");
  http::write(socket, request);
  boost::beast::flat_buffer buffer;
  http::response<http::string_body> response;
  http::read(socket, buffer, response);
  return {response.result_int(), response.body()};
}

int http_port(const Server& server) {
  std::smatch found;
  const std::string log = server.log();
  return std::regex_search(log, found, std::regex("http_port=(\\d+)")) ? std::stoi(found[1]) : 0;
}

}  // namespace isthmus::test

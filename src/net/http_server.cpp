#include "src/net/http_server.hpp"

#include <chrono>
#include <list>
#include <thread>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>

#include "src/net/listening.hpp"

namespace isthmus {
namespace {

namespace beast = boost::beast;
namespace http = boost::beast::http;
using boost::asio::ip::tcp;
using boost::system::error_code;

// A client that takes longer for a request or for reading its answer is gone.
constexpr std::chrono::seconds kPatience{10};
// A probe has a few headers.
constexpr int kMaxSessions = 256;
constexpr std::uint32_t kMaxHeaderBytes = 8 << 10, kMaxBodyBytes = 1 << 10;

/// One connection: a request, its answer, and again until the client closes it.
class HttpSession : public std::enable_shared_from_this<HttpSession> {
 public:
  HttpSession(tcp::socket socket, const HttpServer::Handler& handler, int& sessions)
      : stream_(std::move(socket)), handler_(handler), sessions_(sessions) {
    ++sessions_;
  }
  ~HttpSession() { --sessions_; }
  HttpSession(const HttpSession&) = delete;
  HttpSession& operator=(const HttpSession&) = delete;

  void read() {
    parser_.emplace();
    parser_->header_limit(kMaxHeaderBytes);
    parser_->body_limit(kMaxBodyBytes);
    stream_.expires_after(kPatience);
    http::async_read(stream_, buffer_, *parser_, [self = shared_from_this()](error_code error, std::size_t) {
      if (!error) self->answer();
    });
  }

 private:
  void answer() {
    const auto& request = parser_->get();
    HttpReply reply;
    if (request.method() != http::verb::get && request.method() != http::verb::head) {
      reply = {405, "text/plain; charset=utf-8", "only GET and HEAD\n"};
    } else {
      const std::string target(request.target());
      reply = handler_(target.substr(0, target.find('?')));
    }
    response_ = {};
    response_.version(request.version());
    response_.result(reply.status);
    response_.set(http::field::content_type, reply.type);
    response_.set(http::field::cache_control, "no-store");
    response_.keep_alive(request.keep_alive());
    response_.body() = std::move(reply.body);
    response_.prepare_payload();
    if (request.method() == http::verb::head) response_.body().clear();
    stream_.expires_after(kPatience);
    http::async_write(stream_, response_, [self = shared_from_this()](error_code error, std::size_t) {
      if (error) return;
      if (self->response_.keep_alive()) {
        self->read();
      } else {
        error_code ignored;
        self->stream_.socket().shutdown(tcp::socket::shutdown_send, ignored);
      }
    });
  }

  beast::tcp_stream stream_;
  const HttpServer::Handler& handler_;
  int& sessions_;
  beast::flat_buffer buffer_;
  std::optional<http::request_parser<http::string_body>> parser_;
  http::response<http::string_body> response_;
};

}  // namespace

class HttpServer::Impl {
 public:
  Impl(const std::vector<std::string>& addresses, std::uint16_t port, Handler handler)
      : port_(port), handler_(std::move(handler)) {
    for (const std::string& address : addresses) {
      acceptors_.push_back(listen_on(context_, address, port_, tcp::acceptor::max_listen_connections));
      port_ = acceptors_.back().local_endpoint().port();
    }
    for (tcp::acceptor& acceptor : acceptors_) {
      accept_each(acceptor, [this](tcp::socket socket) {
        // Closed at once otherwise: descriptors are for clients and the database.
        if (sessions_ < kMaxSessions)
          std::make_shared<HttpSession>(std::move(socket), handler_, sessions_)->read();
      });
    }
    thread_ = std::thread([this] { context_.run(); });
  }
  ~Impl() {
    context_.stop();
    thread_.join();
  }
  std::uint16_t port() const { return port_; }

 private:
  std::uint16_t port_;
  const Handler handler_;
  int sessions_ = 0;  // outlives them, which end with the context
  boost::asio::io_context context_{1};
  std::list<tcp::acceptor> acceptors_;
  std::thread thread_;
};

HttpServer::HttpServer(const std::vector<std::string>& addresses, std::uint16_t port, Handler handler)
    : impl_(std::make_unique<Impl>(addresses, port, std::move(handler))) {}
HttpServer::~HttpServer() = default;
std::uint16_t HttpServer::port() const { return impl_->port(); }

}  // namespace isthmus

// The HTTP port of a server under test.
#pragma once

#include <string>

#include "tests/support/server.hpp"

namespace isthmus::test {

struct HttpAnswer {
  unsigned status = 0;
  std::string body;
};

/// One request on a connection of its own. Throws boost::system::system_error.
HttpAnswer http_get(int port, const std::string& path, const std::string& method = "GET");

/// The HTTP port that the server has said in its log, 0 if it has none.
int http_port(const Server& server);

}  // namespace isthmus::test

// Servers with TLS ports.
#pragma once

#include <regex>
#include <string>
#include <vector>

#include "tests/support/certificates.hpp"
#include "tests/support/server.hpp"

namespace isthmus::test {

/// The options of a server that serves TLS on a free port.
inline std::vector<std::string> tls_options(const Authority& authority, const Identity& identity) {
  return {"--tls-port",         "0",
          "--tls-cert-file",    identity.cert_file,
          "--tls-key-file",     identity.key_file,
          "--tls-ca-cert-file", authority.file()};
}

/// The port that the server has said in its log; 0 if it has not.
inline int tls_port(const Server& server) {
  std::smatch found;
  const std::string log = server.log();
  return std::regex_search(log, found, std::regex("tls_port=(\\d+)")) ? std::stoi(found[1]) : 0;
}

}  // namespace isthmus::test

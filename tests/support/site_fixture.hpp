// Servers on one PostgreSQL database, for the tests of a site.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/client.hpp"
#include "tests/support/server.hpp"

namespace isthmus::test {

/// Servers of one site. They end with the test, before what the test itself holds.
class SiteFixture : public testing::Test {
 protected:
  using Options = std::vector<std::string>;

  void TearDown() override { servers_.clear(); }

  /// One more server on the database that `url` names.
  Server& add_server(const std::string& url, const Options& more = {}) {
    ServerOptions options{.backend = url, .more = {"--notify-keyspace-events", "AKEn"}};
    options.more.insert(options.more.end(), more.begin(), more.end());
    servers_.push_back(std::make_unique<Server>(std::move(options)));
    return *servers_.back();
  }
  /// Two servers, the writer first. The other one may reach the database by another way.
  std::pair<Server*, Server*> writer_and_follower(const std::string& url, const std::string& follower_url,
                                                  const Options& more = {}) {
    Server& first = add_server(url, more);
    EXPECT_TRUE(eventually([&] { return role(first) == "writer"; }));
    Server& second = add_server(follower_url, more);
    return {&first, &second};
  }

  /// What INFO says of the server in the section `site`.
  static std::string site_info(Server& server, const std::string& name) {
    Client client(server.port());
    return info_field(client, "site", name).value_or("");
  }
  static std::uint64_t site_count(Server& server, const std::string& name) {
    const std::string text = site_info(server, name);
    return text.empty() ? 0 : std::stoull(text);
  }
  /// An array of strings and integers on one line.
  static std::string flat(const resp::Value& array) {
    std::string line;
    for (const resp::Value& item : array.items) {
      if (!line.empty()) line += " ";
      line += item.type == resp::Value::Type::integer ? std::to_string(item.integer) : item.text;
    }
    return line;
  }
  static std::string role(Server& server) { return site_info(server, "site_role"); }

  std::vector<std::unique_ptr<Server>> servers_;
};

}  // namespace isthmus::test

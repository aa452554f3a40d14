// What the database knows of who has numbered rows: which origins it remembers, and which of this site's own
// rows a peer has given back.
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "backend/links.hpp"
#include "tests/backend/postgresql_support.hpp"

namespace isthmus::backend::test {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class PostgresqlOriginsTest : public ::testing::Test {
 protected:
  PostgresqlOriginsTest() : log_(open_connected(database_.url())) {
    log_->append(make_batch({lease_row(kLease, kServer, "here:1")}));
  }
  /// Progress of an origin that was last heard of so many days ago; `site` as SQL has it.
  void remember(OriginId origin, const std::string& site, int days) const {
    database_.sql("INSERT INTO isthmus.progress (origin, seq, site, updated_at) VALUES (" +
                  std::to_string(origin) + ", 1, " + site + ", now() - make_interval(days => " +
                  std::to_string(days) + "))");
  }
  /// What the writer still remembers after it has looked for what may be forgotten: the first of many rounds.
  std::vector<std::string> remembered() const {
    open_shared(database_.url())->shared()->upkeep({kServer, "here:1", "test", 0, true}, kLease);
    return database_.sql("SELECT origin FROM isthmus.progress ORDER BY 1");
  }

  static constexpr OriginId kLease = 500, kServer = 17;
  TestDatabase database_;
  std::unique_ptr<Log> log_;
};

// Else it would look to the peers, which know them still, as if this database had lost their rows.
TEST_F(PostgresqlOriginsTest, AreRememberedForLongerThanByPeersIfTheyAreTheSitesOwn) {
  const std::string own = std::to_string(log_->site());
  remember(1, own, 2);
  remember(2, own, 40);
  remember(3, own, 70);
  remember(4, "8", 2);
  remember(5, "8", 40);
  remember(6, "NULL", 2);
  remember(7, "NULL", 40);
  database_.sql("INSERT INTO isthmus.peer (name, id, conninfo) VALUES ('eight', 8, '')");
  EXPECT_THAT(remembered(), ElementsAre("1", "2", "4", "6"));
  database_.sql("DELETE FROM isthmus.peer");
  EXPECT_THAT(remembered(), IsEmpty()) << "nobody else knows them";
}

TEST_F(PostgresqlOriginsTest, TellWhichOwnRowsAPeerHasGivenBack) {
  const auto row = [](OriginId origin, Seq seq, SiteId site, bool copied) {
    Row made = make_row(seq, RowKind::set, "k", "", "v");
    made.origin = origin;
    made.site = site;
    made.copied = copied;
    return made;
  };
  const SiteId own = log_->site(), other = own + 1;
  log_->append(make_batch({row(1, 3, own, true), row(1, 5, own, true), row(1, 7, own, false),
                           row(2, 4, own, false), row(3, 6, other, true), row(4, 2, other, false)}));
  remember(5, std::to_string(own), 0);
  const Reaches reaches = log_->shared()->open_links()->reaches();
  EXPECT_EQ(reaches.at(1).returned, 5U);
  EXPECT_EQ(reaches.at(1).last, 7U);
  EXPECT_EQ(reaches.at(1).site, own);
  for (const OriginId origin : {2, 3, 4, 5}) EXPECT_EQ(reaches.at(origin).returned, 0U) << origin;
}

}  // namespace
}  // namespace isthmus::backend::test

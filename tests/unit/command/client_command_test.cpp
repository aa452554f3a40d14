// CLIENT: what it shows of connections, and which of them KILL chooses.
#include "src/command/client_command.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/command/command_runner.hpp"

namespace isthmus {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

class ClientCommand : public testing::Test {
 protected:
  ClientCommand() {
    run_.client().id = 1;
    run_.client().address = "10.0.0.1:1000";
    run_.client().local_address = "10.0.0.9:6379";
    subscriber_.id = 2;
    subscriber_.address = "10.0.0.2:2000";
    subscriber_.local_address = "10.0.0.9:6379";
    subscriber_.shown_patterns = 1;
    run_.registry().add(subscriber_);
  }
  CommandRunner run_;
  FakeClient subscriber_;
};

TEST_F(ClientCommand, LineHasEveryFieldInRedisOrder) {
  FakeClient client;
  client.id = 3;
  client.address = "1.2.3.4:5";
  client.local_address = "5.6.7.8:6379";
  client.fd = 12;
  client.name = "me";
  client.created_ms = 10'000;
  client.last_active_ms = 14'500;
  client.db = 4;
  client.shown_subscriptions = 1;
  client.shown_patterns = 2;
  client.shown_shard_subscriptions = 3;
  client.shown_multi = 5;
  client.input_bytes = 6;
  client.output_bytes = 70;
  client.queued_messages = 7;
  client.shown_protocol = 3;
  client.library = "lib";
  client.library_version = "1.0";
  client.last_command = find_command("get");
  EXPECT_EQ(
      client_line(client, 15'999),
      "id=3 addr=1.2.3.4:5 laddr=5.6.7.8:6379 fd=12 name=me age=5 idle=1 flags=Px db=4 sub=1 psub=2 ssub=3 "
      "multi=5 qbuf=6 qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll=7 omem=70 tot-mem=4550 "
      "events=rw cmd=get user=default redir=-1 resp=3 lib-name=lib lib-ver=1.0");
}

TEST_F(ClientCommand, LineOfANewConnection) {
  FakeClient client;
  client.created_ms = 2000;  // the clock may have been set back since
  EXPECT_THAT(client_line(client, 1000), AllOf(HasSubstr(" age=0 idle=1 flags=N "), HasSubstr(" cmd=NULL ")));
}

TEST_F(ClientCommand, NamesAreOneVisibleWord) {
  EXPECT_EQ(run_("CLIENT GETNAME"), "$-1\r\n");
  EXPECT_EQ(run_("CLIENT SETNAME me"), "+OK\r\n");
  EXPECT_EQ(run_("CLIENT GETNAME"), "$2\r\nme\r\n");
  constexpr std::string_view kRefused =
      "-ERR Client names cannot contain spaces, newlines or special characters.\r\n";
  for (const std::string_view name : {"a b", "a\nb", "\x7f", "\xc3\xa9", "\t"}) {
    EXPECT_EQ(run_.run({"CLIENT", "SETNAME", name}), kRefused);
  }
  EXPECT_EQ(run_("CLIENT GETNAME"), "$2\r\nme\r\n");
  EXPECT_EQ(run_.run({"CLIENT", "SETNAME", ""}), "+OK\r\n");
  EXPECT_EQ(run_("CLIENT GETNAME"), "$-1\r\n");
}

TEST_F(ClientCommand, SetinfoNamesTheLibrary) {
  EXPECT_EQ(run_("CLIENT SETINFO LIB-NAME go-redis"), "+OK\r\n");
  EXPECT_EQ(run_("CLIENT SETINFO lib-ver 9.1"), "+OK\r\n");
  EXPECT_EQ(run_.client().library, "go-redis");
  EXPECT_EQ(run_.client().library_version, "9.1");
  EXPECT_EQ(run_("CLIENT SETINFO color blue"), "-ERR Unrecognized option 'color'\r\n");
  EXPECT_EQ(run_.run({"CLIENT", "SETINFO", "lib-ver", "9 1"}),
            "-ERR lib-ver cannot contain spaces, newlines or special characters.\r\n");
}

TEST_F(ClientCommand, ListShowsAllOrThoseOfATypeOrThoseOfTheIds) {
  EXPECT_THAT(run_("CLIENT LIST"), AllOf(HasSubstr("id=1 "), HasSubstr("\nid=2 ")));
  EXPECT_THAT(run_("CLIENT LIST TYPE pubsub"), AllOf(HasSubstr("id=2 "), Not(HasSubstr("id=1 "))));
  EXPECT_THAT(run_("CLIENT LIST TYPE NORMAL"), AllOf(HasSubstr("id=1 "), Not(HasSubstr("id=2 "))));
  EXPECT_EQ(run_("CLIENT LIST TYPE replica"), "$0\r\n\r\n");
  EXPECT_THAT(run_("CLIENT LIST ID 2 77 1"), HasSubstr("lib-ver=\nid=1 "));
  EXPECT_EQ(run_("CLIENT LIST TYPE what"), "-ERR Unknown client type 'what'\r\n");
  EXPECT_EQ(run_("CLIENT LIST ID x"), "-ERR Invalid client ID\r\n");
  EXPECT_EQ(run_("CLIENT LIST ID"), "-ERR syntax error\r\n");
  EXPECT_EQ(run_("CLIENT LIST TYPE normal pubsub"), "-ERR syntax error\r\n");
}

TEST_F(ClientCommand, ListAndInfoAreVerbatimInTheNewProtocol) {
  run_.client().protocol = 3;
  EXPECT_THAT(run_("CLIENT INFO"), HasSubstr("\r\ntxt:id=1 addr=10.0.0.1:1000 "));
}

TEST_F(ClientCommand, KillByAddressInTheOldForm) {
  EXPECT_EQ(run_("CLIENT KILL 10.0.0.3:1"), "-ERR No such client\r\n");
  EXPECT_EQ(run_.run({"CLIENT", "KILL", ""}), "-ERR No such client\r\n");
  EXPECT_EQ(run_("CLIENT KILL 10.0.0.2:2000"), "+OK\r\n");
  EXPECT_TRUE(subscriber_.killed.load());
  EXPECT_EQ(run_("CLIENT KILL 10.0.0.1:1000"), "+OK\r\n") << "the old form does not spare the caller";
}

TEST_F(ClientCommand, KillByFiltersThatAllMustFit) {
  EXPECT_EQ(run_("CLIENT KILL ID 2 TYPE normal"), ":0\r\n");
  EXPECT_EQ(run_.run({"CLIENT", "KILL", "ADDR", ""}), ":0\r\n");
  EXPECT_EQ(run_("CLIENT KILL USER default LADDR 10.0.0.9:6379 TYPE pubsub"), ":1\r\n");
  EXPECT_TRUE(subscriber_.killed.load());
  EXPECT_FALSE(run_.client().killed.load());
}

TEST_F(ClientCommand, KillSparesTheCallerUnlessToldNotTo) {
  EXPECT_EQ(run_("CLIENT KILL ID 1"), ":0\r\n");
  EXPECT_EQ(run_("CLIENT KILL LADDR 10.0.0.9:6379 SKIPME no"), ":2\r\n");
}

TEST_F(ClientCommand, KillRefusesWhatItDoesNotKnow) {
  EXPECT_EQ(run_("CLIENT KILL ID 0"), "-ERR client-id should be greater than 0\r\n");
  EXPECT_EQ(run_("CLIENT KILL ID x"), "-ERR client-id should be greater than 0\r\n");
  EXPECT_EQ(run_("CLIENT KILL TYPE x"), "-ERR Unknown client type 'x'\r\n");
  EXPECT_EQ(run_("CLIENT KILL USER bob"), "-ERR No such user 'bob'\r\n");
  EXPECT_EQ(run_("CLIENT KILL SKIPME maybe"), "-ERR syntax error\r\n");
  EXPECT_EQ(run_("CLIENT KILL ID 2 ADDR"), "-ERR syntax error\r\n");
  EXPECT_EQ(run_("CLIENT KILL COLOR blue"), "-ERR syntax error\r\n");
  EXPECT_FALSE(subscriber_.killed.load());
}

TEST_F(ClientCommand, ReplyOffIsNotNarrowedBySkip) {
  EXPECT_EQ(run_("CLIENT REPLY SKIP"), "");
  EXPECT_EQ(run_.client().reply_mode, ReplyMode::skip_next);
  EXPECT_EQ(run_("CLIENT REPLY OFF"), "");
  EXPECT_EQ(run_("CLIENT REPLY SKIP"), "");
  EXPECT_EQ(run_.client().reply_mode, ReplyMode::off);
  EXPECT_EQ(run_("CLIENT REPLY ON"), "+OK\r\n");
  EXPECT_EQ(run_.client().reply_mode, ReplyMode::on);
}

TEST_F(ClientCommand, PauseIsNeitherShortenedNorNarrowed) {
  Pause& pause = run_.services().pause;
  EXPECT_EQ(run_("CLIENT PAUSE 500 WRITE"), "+OK\r\n");
  EXPECT_EQ(pause.until_ms.load(), run_.now_ms() + 500);
  EXPECT_TRUE(pause.writes_only.load());
  EXPECT_EQ(run_("CLIENT PAUSE 100 ALL"), "+OK\r\n");
  EXPECT_EQ(pause.until_ms.load(), run_.now_ms() + 500);
  EXPECT_FALSE(pause.writes_only.load());
  run_.pass(501);
  EXPECT_EQ(run_("CLIENT PAUSE 100 WRITE"), "+OK\r\n");
  EXPECT_TRUE(pause.writes_only.load()) << "a pause that is over does not count";
  EXPECT_EQ(run_("CLIENT UNPAUSE"), "+OK\r\n");
  EXPECT_LE(pause.until_ms.load(), run_.now_ms());
}

TEST_F(ClientCommand, PauseRefusesWhatIsNoTime) {
  EXPECT_EQ(run_("CLIENT PAUSE x"), "-ERR timeout is not an integer or out of range\r\n");
  EXPECT_EQ(run_("CLIENT PAUSE -1"), "-ERR timeout is negative\r\n");
  EXPECT_EQ(run_("CLIENT PAUSE 9223372036854775807"), "-ERR timeout is out of range\r\n");
  EXPECT_EQ(run_("CLIENT PAUSE 1 SOME"), "-ERR CLIENT PAUSE mode must be WRITE or ALL\r\n");
  EXPECT_EQ(run_.services().pause.until_ms.load(), 0);
}

TEST_F(ClientCommand, TrackingCanOnlyBeOff) {
  EXPECT_EQ(run_("CLIENT TRACKING OFF"), "+OK\r\n");
  EXPECT_THAT(run_("CLIENT TRACKING ON OPTIN"), StartsWith("-ERR client side caching "));
  EXPECT_EQ(run_("CLIENT TRACKING ON WHAT"), "-ERR syntax error\r\n");
  EXPECT_EQ(run_("CLIENT TRACKING MAYBE"), "-ERR syntax error\r\n");
  EXPECT_EQ(run_("CLIENT GETREDIR"), ":-1\r\n");
  EXPECT_EQ(run_("CLIENT TRACKINGINFO"),
            "*6\r\n$5\r\nflags\r\n*1\r\n$3\r\noff\r\n$8\r\nredirect\r\n:-1\r\n$8\r\nprefixes\r\n*0\r\n");
}

TEST_F(ClientCommand, UnblockFindsNobodyBlocked) {
  EXPECT_EQ(run_("CLIENT UNBLOCK 2"), ":0\r\n");
  EXPECT_EQ(run_("CLIENT UNBLOCK 2 ERROR"), ":0\r\n");
  EXPECT_EQ(run_("CLIENT UNBLOCK 2 NOW"), "-ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR\r\n");
  EXPECT_EQ(run_("CLIENT UNBLOCK x"), "-ERR value is not an integer or out of range\r\n");
}

TEST_F(ClientCommand, UnknownSubcommandsAreNamed) {
  EXPECT_EQ(run_("CLIENT MAINT_NOTIFICATIONS ON"),
            "-ERR unknown subcommand 'MAINT_NOTIFICATIONS'. Try CLIENT HELP.\r\n");
  EXPECT_EQ(run_("CLIENT ID x"), "-ERR wrong number of arguments for 'client|id' command\r\n");
}

}  // namespace
}  // namespace isthmus

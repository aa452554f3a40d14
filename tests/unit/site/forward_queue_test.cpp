// What becomes of forwarded requests when connections break, writers change and the feed brings rows.
#include "src/site/forward_queue.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "resp/writer.hpp"

namespace isthmus {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr backend::OriginId kSelf = 7, kOther = 8, kThird = 9;
constexpr std::int64_t kTimeoutMs = 5000;

struct NoMailbox : AnswerMailbox {
  void push_answers(std::vector<ForwardAnswer>) override {}
};

class ForwardQueueTest : public testing::Test {
 protected:
  std::uint64_t submit(std::string_view word) {
    ForwardRequest request;
    request.position = 42;
    request.argc = 1;
    resp::Writer(request.args).bulk(word);
    return queue_.submit(request, mailbox_, now_ms_);
  }

  // The requests that go out, each as "number:command", or "HELLO epoch".
  std::vector<std::string> sent() {
    resp::ReplyReader reader;
    reader.feed(queue_.take_output());
    std::vector<std::string> found;
    resp::Value value;
    while (reader.next(value) == resp::ReplyReader::Status::value) {
      const auto& items = value.items;
      if (items.at(1).text == "HELLO") {
        EXPECT_EQ(items.at(2).text, "secret");
        EXPECT_EQ(items.at(3).text, std::to_string(kSelf));
        found.push_back("HELLO " + items.at(4).text);
      } else {
        EXPECT_EQ(items.at(5).text, "42");
        found.push_back(items.at(2).text + ":" + items.at(6).text);
      }
    }
    return found;
  }

  // The answers that have been released, each as "number reply", with "@db" behind it if that is said.
  std::vector<std::string> released() {
    std::vector<std::string> found;
    for (const auto& delivery : queue_.take_released()) {
      for (const ForwardAnswer& answer : delivery.answers) {
        std::string text = std::to_string(answer.request) + " " + answer.reply;
        if (answer.db) text += "@" + std::to_string(*answer.db);
        found.push_back(std::move(text));
      }
    }
    return found;
  }

  bool receive(std::string_view bytes) {
    resp::ReplyReader reader;
    reader.feed(bytes);
    resp::Value value;
    EXPECT_EQ(reader.next(value), resp::ReplyReader::Status::value);
    return queue_.received(value);
  }
  bool greet(backend::OriginId lease, backend::Seq seq) {
    return receive("*2\r\n:" + std::to_string(lease) + "\r\n:" + std::to_string(seq) + "\r\n");
  }
  bool answer(backend::OriginId lease, backend::Seq seq, std::string_view reply, int db = 0) {
    std::string bytes;
    resp::Writer out(bytes);
    out.array(4);
    out.integer(lease);
    out.integer(static_cast<std::int64_t>(seq));
    out.integer(db);
    out.bulk(reply);
    return receive(bytes);
  }
  void connect() { queue_.connected(queue_.address(), "secret"); }
  // Connected to the writer `server`, which holds `lease`, with everything known.
  void join(backend::OriginId lease, backend::OriginId server) {
    queue_.writer_is({lease, server, "host:" + std::to_string(server)});
    queue_.applied(lease, 1);
    connect();
    EXPECT_TRUE(greet(lease, 1));
    EXPECT_TRUE(queue_.ready());
    queue_.take_output();
  }

  std::int64_t now_ms_ = 1000;
  NoMailbox mailbox_;
  ForwardQueue queue_{kSelf, 1000};
};

TEST_F(ForwardQueueTest, SendsWhatWaitedWhenTheWriterIsReached) {
  EXPECT_FALSE(queue_.wants_connection());
  submit("a");
  queue_.writer_is({100, kOther, "host:1"});
  EXPECT_TRUE(queue_.wants_connection());
  EXPECT_EQ(queue_.address(), "host:1");
  connect();
  EXPECT_THAT(sent(), ElementsAre("HELLO 1"));
  EXPECT_TRUE(greet(100, 5));  // nothing is in doubt, so the feed need not be there
  submit("b");
  EXPECT_THAT(sent(), ElementsAre("1:a", "2:b"));
}

TEST_F(ForwardQueueTest, ReleasesAnAnswerWhenTheFeedIsThere) {
  join(100, kOther);
  submit("a");
  submit("b");
  submit("c");
  EXPECT_TRUE(answer(100, 3, "+A\r\n"));
  EXPECT_TRUE(answer(100, 4, "+B\r\n", 2));
  EXPECT_TRUE(answer(100, 0, "-OOM\r\n", -1));  // depends on nothing
  EXPECT_THAT(released(), ElementsAre("3 -OOM\r\n"));
  queue_.applied(100, 2);
  EXPECT_THAT(released(), IsEmpty());
  queue_.applied(100, 3);
  EXPECT_THAT(released(), ElementsAre("1 +A\r\n@0"));
  queue_.applied(100, 9);
  EXPECT_THAT(released(), ElementsAre("2 +B\r\n@2"));
  EXPECT_EQ(queue_.outstanding(), 0u);
}

TEST_F(ForwardQueueTest, ReleasesAtOnceWhatTheFeedHasOvertaken) {
  join(100, kOther);
  submit("a");
  queue_.applied(100, 8);
  EXPECT_TRUE(answer(100, 8, "+A\r\n"));
  EXPECT_THAT(released(), ElementsAre("1 +A\r\n@0"));
}

TEST_F(ForwardQueueTest, TakesTheAnswerFromTheLogWhenItsGroupIsFolded) {
  join(100, kOther);
  submit("a");
  queue_.answered(1, "+A\r\n");
  EXPECT_THAT(released(), IsEmpty());
  queue_.applied(100, 2);
  EXPECT_THAT(released(), ElementsAre("1 +A\r\n"));
  EXPECT_TRUE(answer(100, 2, "+A\r\n"));  // comes late
  EXPECT_THAT(released(), IsEmpty());
  submit("b");
  EXPECT_TRUE(answer(100, 1, "+B\r\n"));  // and is not taken for the next one's
  EXPECT_THAT(released(), ElementsAre("2 +B\r\n@0"));
}

TEST_F(ForwardQueueTest, ReadsTheDatabaseInFrontOfALoggedAnswer) {
  join(100, kOther);
  submit("a");
  queue_.answered(1, row_answer(3, "*0\r\n", 100));
  queue_.applied(100, 2);
  EXPECT_THAT(released(), ElementsAre("1 *0\r\n@3"));
}

TEST_F(ForwardQueueTest, SendsAgainToTheNextWriterOnlyWhatTheLogDoesNotAnswer) {
  join(100, kOther);
  submit("a");
  submit("b");
  submit("c");
  queue_.take_output();
  queue_.lost(now_ms_);
  queue_.answered(2, "+B\r\n");  // committed before the writer died
  queue_.applied(100, 2);
  EXPECT_THAT(released(), ElementsAre("2 +B\r\n"));
  queue_.writer_is({200, kThird, "host:3"});
  queue_.applied(200, 1);
  connect();
  EXPECT_TRUE(greet(200, 1));
  submit("d");
  EXPECT_THAT(sent(), ElementsAre("HELLO 2", "1:a", "3:c", "4:d"));
  EXPECT_EQ(queue_.retries(), 2u);
}

TEST_F(ForwardQueueTest, WaitsUntilTheFeedHasDecidedWhatIsInDoubtWithTheSameWriter) {
  join(100, kOther);
  submit("a");
  submit("b");
  queue_.lost(now_ms_);
  connect();
  EXPECT_TRUE(greet(100, 6));
  EXPECT_THAT(sent(), ElementsAre("HELLO 2"));
  queue_.applied(100, 5);
  EXPECT_THAT(sent(), IsEmpty());
  queue_.answered(1, "+A\r\n");
  queue_.applied(100, 6);
  EXPECT_THAT(sent(), ElementsAre("2:b"));
  EXPECT_THAT(released(), ElementsAre("1 +A\r\n"));
}

TEST_F(ForwardQueueTest, SendsNothingToANewWriterBeforeTheFeedShowsItsLease) {
  join(100, kOther);
  submit("a");
  queue_.lost(now_ms_);
  connect();
  EXPECT_TRUE(greet(200, 1));  // the same server again, under a lease that the feed has not shown
  queue_.answered(1, "+A\r\n");
  queue_.applied(100, 9);
  EXPECT_FALSE(queue_.ready());
  queue_.writer_is({200, kOther, "host:8"});
  EXPECT_FALSE(queue_.must_drop());
  queue_.applied(200, 1);
  EXPECT_TRUE(queue_.ready());
  EXPECT_THAT(released(), ElementsAre("1 +A\r\n"));
}

TEST_F(ForwardQueueTest, DropsAConnectionWhoseLeaseIsOver) {
  join(100, kOther);
  submit("a");
  EXPECT_TRUE(answer(100, 4, "+A\r\n"));
  queue_.writer_is({200, kThird, "host:3"});
  EXPECT_TRUE(queue_.must_drop());
  EXPECT_THAT(released(), ElementsAre("1 +A\r\n@0"));  // all of the old lease has been handed out before
  submit("b");
  EXPECT_THAT(sent(), ElementsAre("1:a"));  // not to the old one
}

TEST_F(ForwardQueueTest, DropsAConnectionThatDoesNotSpeakTheProtocol) {
  queue_.writer_is({100, kOther, "host:1"});
  connect();
  EXPECT_FALSE(receive("-NOTWRITER no\r\n"));
  queue_.lost(now_ms_);
  connect();
  EXPECT_FALSE(receive("*1\r\n:1\r\n"));
  queue_.lost(now_ms_);
  connect();
  EXPECT_TRUE(greet(100, 1));
  EXPECT_FALSE(answer(100, 1, "+A\r\n"));  // to nothing
  submit("a");
  EXPECT_FALSE(receive("-NOTWRITER no\r\n"));
}

TEST_F(ForwardQueueTest, SaysThatAReplyTooLargeForTheLogIsLostWithTheWriter) {
  join(100, kOther);
  submit("a");
  submit("b");
  queue_.answered(1, row_answer(std::nullopt, std::string(200, 'x'), 100));
  queue_.answered(2, "");
  queue_.applied(100, 2);
  EXPECT_THAT(released(), IsEmpty());  // it may still come
  EXPECT_TRUE(answer(100, 2, "+A\r\n"));
  EXPECT_THAT(released(), ElementsAre("1 +A\r\n@0"));
  queue_.lost(now_ms_);
  EXPECT_THAT(released(),
              ElementsAre(HasSubstr("2 -CLUSTERDOWN The command was done, but its reply was lost")));
}

TEST_F(ForwardQueueTest, TellsClientsThatWaitedTooLongAndDropsTheLateAnswer) {
  join(100, kOther);
  submit("a");
  now_ms_ += 1000;
  submit("b");
  now_ms_ += kTimeoutMs - 1000;
  queue_.tick(now_ms_ - 1, kTimeoutMs);
  EXPECT_THAT(released(), IsEmpty());
  queue_.tick(now_ms_, kTimeoutMs);
  EXPECT_THAT(released(),
              ElementsAre(HasSubstr("1 -CLUSTERDOWN The writer of this site cannot be reached; the")));
  EXPECT_TRUE(queue_.refuses());
  EXPECT_TRUE(answer(100, 1, "+A\r\n"));
  EXPECT_TRUE(answer(100, 1, "+B\r\n"));
  EXPECT_THAT(released(), ElementsAre("2 +B\r\n@0"));
  queue_.tick(now_ms_, kTimeoutMs);
  EXPECT_FALSE(queue_.refuses());
}

TEST_F(ForwardQueueTest, DoesNotSendAgainWhatAClientHasBeenToldIsUnknown) {
  join(100, kOther);
  submit("a");
  queue_.lost(now_ms_);
  submit("b");
  now_ms_ += kTimeoutMs;
  queue_.tick(now_ms_, kTimeoutMs);
  EXPECT_EQ(released().size(), 2u);
  submit("c");
  connect();
  EXPECT_TRUE(greet(100, 1));
  EXPECT_THAT(sent(), ElementsAre("HELLO 2", "3:c"));
}

// Rows were cut from the log before they were read: answers of what was sent may have been among them.
TEST_F(ForwardQueueTest, SendsNothingAgainWhoseAnswerMayHaveBeenMissed) {
  join(100, kOther);
  submit("a");
  submit("b");
  queue_.lost(now_ms_);
  submit("c");  // not sent yet
  queue_.answered(1, "+A\r\n");
  queue_.missed_rows();
  EXPECT_FALSE(queue_.refuses());
  EXPECT_THAT(released(), ElementsAre(HasSubstr("2 -CLUSTERDOWN")));
  queue_.writer_is({200, kThird, "host:3"});
  queue_.applied(200, 1);
  EXPECT_THAT(released(), ElementsAre("1 +A\r\n"));
  connect();
  EXPECT_TRUE(greet(200, 1));
  EXPECT_THAT(sent(), ElementsAre("HELLO 2", "3:c"));
}

TEST_F(ForwardQueueTest, TellsWhoHasBeenSentThatTheAnswerMayHaveBeenMissed) {
  join(100, kOther);
  submit("a");
  EXPECT_THAT(sent(), ElementsAre("1:a"));
  queue_.missed_rows();
  EXPECT_THAT(released(), ElementsAre(HasSubstr("1 -CLUSTERDOWN")));
  EXPECT_TRUE(answer(100, 1, "+A\r\n"));
  EXPECT_THAT(released(), IsEmpty()) << "the client is told once";
  EXPECT_EQ(queue_.outstanding(), 0U);
}

TEST_F(ForwardQueueTest, RefusesWhileNobodyIsReachedAndNoLonger) {
  queue_.tick(now_ms_ + kTimeoutMs - 1, kTimeoutMs);
  EXPECT_FALSE(queue_.refuses());
  queue_.tick(now_ms_ + kTimeoutMs, kTimeoutMs);
  EXPECT_TRUE(queue_.refuses());
  join(100, kOther);
  queue_.tick(now_ms_ + kTimeoutMs, kTimeoutMs);
  EXPECT_FALSE(queue_.refuses());
  now_ms_ += 10 * kTimeoutMs;
  queue_.lost(now_ms_);
  queue_.tick(now_ms_ + kTimeoutMs - 1, kTimeoutMs);
  EXPECT_FALSE(queue_.refuses());
  queue_.tick(now_ms_ + kTimeoutMs, kTimeoutMs);
  EXPECT_TRUE(queue_.refuses());
}

TEST_F(ForwardQueueTest, ConnectsToItselfOnlyForWhatWasForwardedBefore) {
  join(100, kOther);
  submit("a");
  queue_.lost(now_ms_);
  queue_.writer_is({200, kSelf, "host:7"});
  queue_.applied(200, 1);
  EXPECT_TRUE(queue_.wants_connection());
  connect();
  EXPECT_TRUE(greet(200, 1));
  EXPECT_THAT(sent(), ElementsAre("HELLO 2", "1:a"));
  EXPECT_TRUE(answer(200, 1, "+A\r\n"));
  EXPECT_FALSE(queue_.wants_connection());
  EXPECT_TRUE(queue_.must_drop());
  queue_.lost(now_ms_);
  queue_.tick(now_ms_ + 10 * kTimeoutMs, kTimeoutMs);
  EXPECT_FALSE(queue_.refuses());
}

TEST_F(ForwardQueueTest, IsFullAtItsBounds) {
  join(100, kOther);
  for (std::size_t i = 0; i < ForwardQueue::kMaxRequests; ++i) {
    EXPECT_FALSE(queue_.full());
    submit("a");
  }
  EXPECT_TRUE(queue_.full());
  EXPECT_TRUE(answer(100, 1, "+A\r\n"));
  EXPECT_FALSE(queue_.full());
  submit(std::string(ForwardQueue::kMaxBytes, 'x'));
  EXPECT_TRUE(queue_.full());
}

}  // namespace
}  // namespace isthmus

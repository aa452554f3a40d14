// A server that dies at any moment leaves all that it acknowledged, and each batch whole or not at all.
#include <csignal>
#include <cstdio>
#include <exception>
#include <string>

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/backend/support.hpp"

namespace isthmus::backend::test {
namespace {

/// Late enough that nothing expires during the test.
constexpr std::int64_t kNowMs = 1'000'000;

/// The row that every writer writes under this seq.
OwnedRow row_at(Seq seq) {
  constexpr RowKind kKinds[] = {RowKind::set, RowKind::hcreate, RowKind::hset, RowKind::update,
                                RowKind::del, RowKind::expire,  RowKind::hdel, RowKind::hset};
  OwnedRow made(make_row(seq, kKinds[(seq * 7 + seq / 11) % 8]));
  // Even keys are strings and odd ones hashes, as commands have it.
  const bool of_string = made.row.kind == RowKind::set || made.row.kind == RowKind::update;
  made.key = "key" + std::to_string(seq * 5 % 40 * 2 + (of_string ? 0 : 1));
  made.field = "field" + std::to_string(seq % 5);
  made.value = "value" + std::to_string(seq);
  return made;
}

Seq batch_size(Seq first) { return 1 + first % 23; }

RowBatch batch_from(Seq first) {
  RowBatch batch;
  for (Seq seq = first; seq < first + batch_size(first); ++seq) batch.append(row_at(seq).view());
  return batch;
}

void fold_batch(Model& model, Seq first) {
  for (Seq seq = first; seq < first + batch_size(first); ++seq) model.row(row_at(seq).view());
}

/// Writes the checkpoint in pieces of a few keys, with commits between them, and cuts the log.
void checkpoint(Log& log, Model& model, Seq covered) {
  const CheckpointChunk all = model.checkpoint();
  auto field = all.fields.begin();
  for (std::size_t from = 0; from < all.keys.size(); from += 8) {
    CheckpointChunk piece;
    for (std::size_t i = from; i < std::min(from + 8, all.keys.size()); ++i) {
      piece.keys.push_back(all.keys[i]);
      for (; field != all.fields.end() && field->key == all.keys[i].key; ++field)
        piece.fields.push_back(*field);
    }
    log.write_checkpoint(piece);
  }
  log.finish_checkpoint({{kOrigin, covered}});
  while (log.cut()) {
  }
  model = Model();
  for (const StoredKey& key : all.keys) model.key(key);
  for (const StoredField& stored : all.fields) model.field(stored);
}

/// The life of the server that is going to be killed: each commit's first seq goes into the pipe after it is
/// done.
[[noreturn]] void write_until_killed(const std::string& url, Seq next, int acknowledgements) {
  try {
    const auto log = open_log(url);
    Model model;
    log->load(model);
    for (int round = 1;; ++round) {
      log->append(batch_from(next));
      if (::write(acknowledgements, &next, sizeof next) != sizeof next) _exit(1);
      fold_batch(model, next);
      next += batch_size(next);
      if (round % 10 == 0) checkpoint(*log, model, next - 1);
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "writer: %s\n", error.what());
    _exit(1);
  }
}

/// Runs a writer from `next` on, kills it after so many commits, and gives the first seq that was not
/// acknowledged.
Seq run_and_kill(const std::string& url, Seq next, int commits) {
  int ends[2];
  if (::pipe(ends) != 0) return 0;
  const pid_t child = ::fork();
  if (child == 0) {
    ::close(ends[0]);
    write_until_killed(url, next, ends[1]);
  }
  ::close(ends[1]);
  Seq first = 0;
  int count = 0;
  while (::read(ends[0], &first, sizeof first) == sizeof first) {
    next = first + batch_size(first);
    if (++count == commits) ::kill(child, SIGKILL);
  }
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status)) << "the writer ended by itself";
  EXPECT_GE(count, commits);
  return next;
}

class Crash : public ::testing::TestWithParam<int> {};

TEST_P(Crash, LosesNothingThatWasAcknowledged) {
  const TempFolder folder;
  Seq next = 1;
  Model expected;
  for (int round = 0; round < 4; ++round) {
    const Seq acknowledged = run_and_kill(folder.url(), next, GetParam() + round * 3);
    for (; next < acknowledged; next += batch_size(next)) fold_batch(expected, next);
    Model found;
    open_log(folder.url())->load(found);
    if (found.visible(kNowMs) != expected.visible(kNowMs)) {
      // The one commit whose acknowledgement the writer did not live to send.
      fold_batch(expected, next);
      next += batch_size(next);
    }
    ASSERT_EQ(found.visible(kNowMs), expected.visible(kNowMs)) << "round " << round;
    EXPECT_EQ(query_lines(folder.path(), "PRAGMA integrity_check"), std::vector<std::string>{"ok"});
  }
}

INSTANTIATE_TEST_SUITE_P(AfterSoManyCommits, Crash, ::testing::Values(1, 2, 9, 10, 11, 33, 100));

}  // namespace
}  // namespace isthmus::backend::test

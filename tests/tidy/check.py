#!/usr/bin/env python3
"""Keeps the house rules that no compiler checks: which folder may include which, how long a file may be, what a file holds.

    tests/tidy/check.py           checks all sources; prints each finding as file:line: rule; ends with `N passed, N failed`
    tests/tidy/check.py --test    proves that every rule can find something

Each rule counts as one. The includes point one way: a folder lists below what it may use, and nothing else.
"""

import pathlib
import re
import subprocess
import sys
from typing import Iterator, NamedTuple

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent

MAX_LINES = 700
# Longer files that are allowed, each with its reason.
LONG_FILES = {}

# What the sources of a part may include of our own, besides the part itself. Parts are folders; the files that lie directly
# in src/ are the parts src/config (by the beginning of the name) and src/top, which builds everything and so sees everything.
MAY_USE = {
    "resp": set(),
    "backend": set(),
    "src/observe": set(),
    "src/config": {"src/observe"},
    "src/tls": {"src/observe", "src/config"},
    "src/keyspace": {"backend", "src/observe"},
    "src/pubsub": {"resp", "src/keyspace", "src/observe"},
    "src/site": {"resp", "backend", "src/keyspace", "src/pubsub", "src/observe", "src/tls", "src/config"},
    "src/command": {"resp", "backend", "src/keyspace", "src/pubsub", "src/site", "src/observe", "src/tls", "src/config"},
    "src/net": {"resp", "backend", "src/keyspace", "src/pubsub", "src/site", "src/command", "src/observe", "src/tls", "src/config"},
    "src/top": None,
}

# Headers of libraries that only one place may know, so that the rest can be tested and changed without them.
ONLY_IN = {
    "sqlite3.h": ("backend/", "tests/"),
    "libpq-fe.h": ("backend/", "tests/"),
    "CLI/": ("src/config",),
    "openssl/": ("src/tls/", "tests/"),
    "spdlog/": ("src/observe/",),
    "hiredis/": ("tests/", "compat/"),
    "gtest/": ("tests/",),
}

# The standard library's headers have no slash and no .h.
STANDARD_HEADER = re.compile(r"^[a-z_0-9]+$")
INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]')
# Spelled so that this file does not find itself.
UNFINISHED = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "X" * 3, "HA" + "CK"]) + r")\b")
# Where a checkout lies on somebody's machine is nobody else's business.
MACHINE_PATH = re.compile(r"(?<![\w.])/(home|root|work|Users)/\w")

TEXT_SUFFIXES = {".cpp", ".hpp", ".py", ".sh", ".md", ".txt", ".json", ".toml", ".yml", ".yaml", ""}
SCRIPTS = {"run", "test", ".ci/run", "compat/run", "docker/healthcheck", "docker/postgres-stand-in", "docker/test", "k8s/test/exporter",
           "k8s/test/rolling", "k8s/test/run", "tests/bench/run"}


class Source(NamedTuple):
    path: str
    lines: list[str]
    ends_well: bool = True


class Finding(NamedTuple):
    path: str
    line: int
    what: str


def is_cpp(source: Source) -> bool:
    return source.path.endswith((".cpp", ".hpp"))


def part_of(path: str) -> str | None:
    """The part of MAY_USE that a path belongs to, or None if it is none (tests, compat)."""
    pieces = path.split("/")
    if pieces[0] in ("resp", "backend"):
        return pieces[0]
    if pieces[0] != "src":
        return None
    if len(pieces) == 2:
        return "src/config" if pieces[1].startswith("config") else "src/top"
    return "/".join(pieces[:2])


def includes(source: Source) -> Iterator[tuple[int, str, str]]:
    for number, line in enumerate(source.lines, 1):
        match = INCLUDE.match(line)
        if match:
            yield number, match.group(1), match.group(2)


# --- The rules. Each takes one source and yields findings.


def layers(source: Source) -> Iterator[Finding]:
    """includes point one way"""
    part = part_of(source.path)
    if not is_cpp(source) or part is None:
        return
    if part not in MAY_USE:
        yield Finding(source.path, 1, f"the folder {part} has no line in tests/tidy/check.py that says what it may include")
        return
    allowed = MAY_USE[part]
    for number, mark, name in includes(source):
        other = part_of(name) if mark == '"' else None
        if mark == '"' and other is None:
            yield Finding(source.path, number, f"include {name} by its path from the root, and nothing from tests")
        elif other is not None and other != part and allowed is not None and other not in allowed:
            yield Finding(source.path, number, f"{part} must not include {other}")


def libraries(source: Source) -> Iterator[Finding]:
    """each library is known in its own place only"""
    if not is_cpp(source):
        return
    for number, mark, name in includes(source):
        for header, places in ONLY_IN.items():
            if name.startswith(header) and not source.path.startswith(places):
                yield Finding(source.path, number, f"<{name}> belongs to {' and '.join(places)} only")
        if mark == "<" and source.path.startswith("resp/") and not STANDARD_HEADER.match(name):
            yield Finding(source.path, number, f"resp includes the standard library only, not <{name}>")


def length(source: Source) -> Iterator[Finding]:
    """no file is too long to be read at once"""
    if not is_cpp(source) and not source.path.endswith(".py"):
        return
    limit = LONG_FILES.get(source.path, MAX_LINES)
    if len(source.lines) > limit:
        yield Finding(source.path, limit + 1, f"{len(source.lines)} lines, at most {limit}")


def finished(source: Source) -> Iterator[Finding]:
    """nothing is left for later in a comment"""
    for number, line in enumerate(source.lines, 1):
        match = UNFINISHED.search(line)
        if match and not source.path.endswith(".md"):
            yield Finding(source.path, number, f"a mark {match.group(1)}: do it or open an issue")


def opening(source: Source) -> Iterator[Finding]:
    """a header says first what it is for, and has its guard"""
    if not source.path.endswith(".hpp"):
        return
    if not source.lines or not re.match(r"// \S", source.lines[0]):
        yield Finding(source.path, 1, "the first line is a comment that says what the file is for")
    if "#pragma once" not in source.lines[:12]:
        yield Finding(source.path, 2, "a header needs #pragma once behind its first comment")


def cleanliness(source: Source) -> Iterator[Finding]:
    """no tabs, no blanks at line ends, one newline at the end, no paths of one machine"""
    # In the cases of the comparison blanks and empty lines have a meaning.
    is_data = source.path.startswith("compat/cases/")
    for number, line in enumerate(source.lines, 1):
        if is_cpp(source) and "\t" in line:
            yield Finding(source.path, number, "a tab")
        if line != line.rstrip() and not is_data:
            yield Finding(source.path, number, "blanks at the end of the line")
        if MACHINE_PATH.search(line):
            yield Finding(source.path, number, "a path that exists on one machine only")
    if not source.ends_well and not is_data:
        yield Finding(source.path, len(source.lines), "the last line ends with one newline")


def names(source: Source) -> Iterator[Finding]:
    """headers keep names to themselves"""
    if not source.path.endswith(".hpp"):
        return
    for number, line in enumerate(source.lines, 1):
        if re.match(r"using namespace\b", line):
            yield Finding(source.path, number, "using namespace in a header")


RULES = [layers, libraries, length, finished, opening, cleanliness, names]


def fuzzers(paths: set[str]) -> Iterator[Finding]:
    """every fuzz target has a corpus"""
    for path in sorted(paths):
        match = re.fullmatch(r"tests/fuzz/(\w+)_fuzzer\.cpp", path)
        if match and not any(p.startswith(f"tests/fuzz/corpus/{match.group(1)}/") for p in paths):
            yield Finding(path, 1, f"there is no corpus in tests/fuzz/corpus/{match.group(1)}")


def tracked_paths() -> list[str]:
    """Files of the project: those that git tracks, or all that a copy without git has."""
    git = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, check=False)
    if git.returncode == 0 and git.stdout:
        listed = git.stdout.decode().split("\0")
    else:
        listed = [str(p.relative_to(ROOT)) for p in ROOT.rglob("*")]
    skipped = ("build/", "data/", "node_modules/")
    return sorted(p for p in listed if p and not p.startswith(skipped) and (ROOT / p).is_file())


def is_text(path: str) -> bool:
    pure = pathlib.PurePosixPath(path)
    if path.startswith("tests/fuzz/corpus/") or pure.name == "LICENSE":
        return False
    return path in SCRIPTS or (pure.suffix in TEXT_SUFFIXES and pure.suffix != "")


def read(path: str) -> Source:
    text = (ROOT / path).read_text(encoding="utf-8", errors="replace")
    ends_well = text == "" or (text.endswith("\n") and not text.endswith("\n\n"))
    # Not splitlines(): that also splits at form feeds and the like.
    lines = text.split("\n")
    if lines and lines[-1] == "":
        lines.pop()
    return Source(path, lines, ends_well)


def check_all() -> int:
    paths = tracked_paths()
    sources = [read(path) for path in paths if is_text(path)]
    results = {rule.__doc__: [f for source in sources for f in rule(source)] for rule in RULES}
    results[fuzzers.__doc__] = list(fuzzers(set(paths)))
    failed = 0
    for rule, findings in results.items():
        failed += bool(findings)
        for finding in findings:
            print(f"{finding.path}:{finding.line}: {finding.what}  [{rule}]")
    print(f"{len(results) - failed} passed, {failed} failed")
    return 1 if failed else 0


# --- What each rule must find, and what it must leave alone.

GOOD_HEADER = ["// What it is for.", "#pragma once"]
BAD = [
    (layers, Source("resp/a.cpp", ['#include "src/config.hpp"'])),
    (layers, Source("backend/a.cpp", ['#include "resp/writer.hpp"'])),
    (layers, Source("src/keyspace/a.cpp", ['#include "src/net/session.hpp"'])),
    (layers, Source("src/keyspace/a.cpp", ['#include "src/command/command.hpp"'])),
    (layers, Source("src/observe/a.cpp", ['#include "src/server.hpp"'])),
    (layers, Source("src/net/a.cpp", ['#include "src/server.hpp"'])),
    (layers, Source("src/net/a.cpp", ['#include "session.hpp"'])),
    (layers, Source("src/net/a.cpp", ['#include "tests/support/server.hpp"'])),
    (layers, Source("src/unheard/a.cpp", [])),
    (libraries, Source("src/site/a.cpp", ["#include <sqlite3.h>"])),
    (libraries, Source("src/site/a.cpp", ["#include <libpq-fe.h>"])),
    (libraries, Source("src/net/a.cpp", ["#include <spdlog/spdlog.h>"])),
    (libraries, Source("resp/a.hpp", ["#include <boost/asio.hpp>"])),
    (length, Source("src/a.cpp", [""] * (MAX_LINES + 1))),
    (finished, Source("src/a.cpp", ["// TO" + "DO later"])),
    (opening, Source("src/a.hpp", ["#pragma once", "#include <string>"])),
    (opening, Source("src/a.hpp", ["// What it is for.", "int x;"])),
    (cleanliness, Source("src/a.cpp", ["\tint x;"])),
    (cleanliness, Source("src/a.cpp", ["int x; "])),
    (cleanliness, Source("README.md", ["cd /" + "home/somebody/isthmus"])),
    (cleanliness, Source("src/a.cpp", ["int x;"], False)),
    (names, Source("src/a.hpp", ["using namespace std;"])),
]
GOOD = [
    Source("src/server.hpp", GOOD_HEADER + ["", '#include "src/net/session.hpp"', "#include <string>"]),
    Source("src/keyspace/a.hpp", GOOD_HEADER + ['#include "backend/row.hpp"', '#include "src/keyspace/node.hpp"']),
    Source("backend/sqlite.cpp", ["// SQLite.", "#include <sqlite3.h>", '#include "backend/log.hpp"']),
    Source("tests/integration/a.cpp", ["// A test.", "#include <hiredis/hiredis.h>", '#include "tests/support/server.hpp"']),
]


def test_rules() -> int:
    failed = 0
    for rule, source in BAD:
        if not list(rule(source)):
            print(f"{rule.__name__} found nothing in {source.path}: {source.lines[:1]}")
            failed += 1
    for source in GOOD:
        for rule in RULES:
            for finding in rule(source):
                print(f"{rule.__name__} should not have found: {finding}")
                failed += 1
    if not list(fuzzers({"tests/fuzz/x_fuzzer.cpp"})) or list(fuzzers({"tests/fuzz/x_fuzzer.cpp", "tests/fuzz/corpus/x/1"})):
        print("fuzzers does not tell a target with a corpus from one without")
        failed += 1
    print(f"{len(BAD) + len(GOOD) + 1 - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(test_rules() if sys.argv[1:] == ["--test"] else check_all())

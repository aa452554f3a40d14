#!/usr/bin/env python3
"""Holds the lists of the documentation true: every option, metric and error reply that the source has is in its list, and nothing
else is.

    tests/tidy/reference.py           prints what is missing on either side; ends with `N passed, N failed`
    tests/tidy/reference.py --test    proves that each comparison can find something

A list is a table whose rows begin with a name between backquotes; a row may have several, by comma. What differs each time in an
error, and the rest of a long text, stands there as an ellipsis, up to which the text is compared.
"""

import pathlib
import re
import sys
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent

# The first words of error replies. SQL and texts of help begin with capitals too.
ERROR_WORDS = "BUSYKEY CLUSTERDOWN DENIED ERR EXECABORT NOAUTH NOPROTO NOTWRITER OOM WRONGPASS WRONGTYPE"
ERROR = re.compile(r"-?(?:" + "|".join(ERROR_WORDS.split()) + r") [^ …]")
LITERAL = re.compile(r'"((?:[^"\\\n]|\\.)*)"')
# Literals side by side are one text.
TEXT = re.compile(r'"(?:[^"\\\n]|\\.)*"(?:\s*"(?:[^"\\\n]|\\.)*")*')
OPTION = re.compile(r'\{"([a-z][a-z-]*)",\s*"[^"]*",\s*group\b')
METRIC = re.compile(r'\b(?:gauge|counter|histogram|each)\(\s*"((?:isthmus|redis)_[a-z_]+)"')
ROW = re.compile(r"^\| ((?:`[^`]*`(?:, )?)+) \|", re.M)
# The flags that are no settings; --help has them.
FLAGS = {"help", "version"}


class Reference(NamedTuple):
    """A list, and what it must hold."""

    what: str
    page: str
    source: set[str]
    listed: set[str]


def files(*folders: str) -> str:
    paths = [path for folder in folders for pattern in ("*.cpp", "*.hpp") for path in sorted((ROOT / folder).rglob(pattern))]
    return "\n".join(path.read_text(encoding="utf-8") for path in paths)


def options_of(source: str) -> set[str]:
    return set(OPTION.findall(source))


def metrics_of(source: str) -> set[str]:
    return set(METRIC.findall(source))


def errors_of(source: str) -> set[str]:
    """The texts of error replies, as far as they are the same each time."""
    joined = ("".join(LITERAL.findall(text)) for text in TEXT.findall(source))
    return {text.removeprefix("-").removesuffix("\\r\\n").strip() for text in joined if ERROR.match(text)}


def rows_of(page: str) -> list[str]:
    return [name for row in ROW.findall(page) for name in re.findall(r"`([^`]*)`", row)]


def options_listed(page: str) -> set[str]:
    return {name.removeprefix("--") for name in rows_of(page) if re.fullmatch(r"--[a-z-]+", name)}


def metrics_listed(page: str) -> set[str]:
    return {name for name in rows_of(page) if re.fullmatch(r"(isthmus|redis)_[a-z_]+", name)}


def errors_listed(page: str) -> set[str]:
    return set(rows_of(page))


def shortened(texts: set[str], listed: set[str]) -> set[str]:
    """The texts, those that begin as an entry with an ellipsis does as that entry."""
    beginnings = {entry.split("…")[0].strip(): entry for entry in listed if "…" in entry}
    return {next((entry for beginning, entry in beginnings.items() if text.startswith(beginning)), text) for text in texts}


def references() -> list[Reference]:
    def page(name: str) -> str:
        return (ROOT / name).read_text(encoding="utf-8")

    source, config = files("src", "resp"), "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "src").glob("config*.cpp")))
    errors = errors_listed(page("docs/errors.md"))
    return [
        Reference("option", "README.md", options_of(config) | {"config"}, options_listed(page("README.md"))),
        Reference("metric", "docs/metrics.md", metrics_of(source), metrics_listed(page("docs/metrics.md"))),
        Reference("error reply", "docs/errors.md", shortened(errors_of(source), errors), errors),
    ]


def compare(reference: Reference) -> list[str]:
    if not reference.source:
        return [f"{reference.page}: the source shows no {reference.what}: does this check still read it?"]
    return [f"{reference.page}: lacks the {reference.what} {name!r}" for name in sorted(reference.source - reference.listed - FLAGS)] + [
        f"{reference.page}: has the {reference.what} {name!r}, which the source has not" for name in sorted(reference.listed - reference.source - FLAGS)]


def check_all() -> int:
    failed = 0
    for reference in references():
        findings = compare(reference)
        failed += bool(findings)
        for finding in findings:
            print(finding)
    print(f"{3 - failed} passed, {failed} failed")
    return 1 if failed else 0


# --- What each reader must find.

CASES = [
    (options_of, '{"port", "N", group, "TCP port",', {"port"}),
    (options_of, '{"peer", "NAME=URL", group,\n "another site"', {"peer"}),
    (metrics_of, 'page.gauge("redis_up", "1: this server answers", 1); "redis_version"', {"redis_up"}),
    (errors_of, 'reply.error("ERR syntax error");', {"ERR syntax error"}),
    (errors_of, 'text = "ERR unknown command \'";', {"ERR unknown command '"}),
    (errors_of, 'k = "CLUSTERDOWN one "\n    "text";', {"CLUSTERDOWN one text"}),
    (errors_of, '"-ERR max number of clients reached\\r\\n"', {"ERR max number of clients reached"}),
    (errors_of, '"SELECT count(*)", "GET [<count>]", "ERR "', set()),
    (options_listed, "| `--port`, `--bind` | 6379 | TCP port, see `--help` |", {"port", "bind"}),
    (metrics_listed, "| `redis_up` | gauge | as `isthmus_writer` |", {"redis_up"}),
    (errors_listed, "| `ERR unknown command '…` | not served |", {"ERR unknown command '…"}),
    (lambda text: shortened({text, "ERR x"}, {"ERR unknown…", "ERR x"}), "ERR unknown command '", {"ERR unknown…", "ERR x"}),
]


def test_readers() -> int:
    failed = 0
    for reader, text, wanted in CASES:
        if reader(text) != wanted:
            print(f"{reader.__name__} finds {reader(text)} in {text!r}, not {wanted}")
            failed += 1
    one_each = Reference("thing", "page", {"a", "b"}, {"b", "c"})
    if len(compare(one_each)) != 2 or len(compare(Reference("thing", "page", set(), set()))) != 1:
        print("compare does not see what is missing on either side")
        failed += 1
    print(f"{len(CASES) + 1 - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(test_readers() if sys.argv[1:] == ["--test"] else check_all())

"""The language of the case files in compat/cases: reads a file into cases. compat/README.md describes the language."""

import itertools
import os
import re
import time

DIRECTIVES = ("setup", "each", "proto", "events", "differs", "state", "server", "order", "follower")
ALTERNATIVES = re.compile(r"\{([^{}]*\|[^{}]*)\}")
STEP_HEAD = re.compile(r"^(?:(\d+)(>|<)\s*)?(.*)$")
NORMALISER = re.compile(r"^!([a-z]+)(?:\(((?:[^()\\]|\\.|\([^()]*\))*)\))?\s+")
ESCAPES = {"n": b"\n", "r": b"\r", "t": b"\t", "b": b"\b", "a": b"\a"}


class CaseError(Exception):
    """A case file that cannot be read."""


class Variable:
    """A word that is replaced by what an earlier step of the same case saved."""

    def __init__(self, name):
        self.name = name


class Clock:
    """A word that is a point in time: now plus an offset, in seconds or milliseconds. Both servers get the same one."""

    def __init__(self, milliseconds, offset):
        self.milliseconds = milliseconds
        self.offset = offset


class Step:
    """One line of a case: a command to send on a connection, or messages to await there."""

    def __init__(self, line, conn, await_what, words, normalisers, text):
        self.line = line
        self.conn = conn
        self.await_what = await_what  # None, a number of messages, "eof", or "until TEXT"
        self.words = words
        self.normalisers = normalisers  # [(name, argument)]
        self.text = text
        self.expected = None  # what our server is to answer, where it differs on purpose

    def option(self, name):
        return next((argument or "" for n, argument in self.normalisers if n == name), None)


class Case:
    """Steps that run together, between a clean start and a look at events and state."""

    def __init__(self, file, line, title, settings, steps):
        self.file = file
        self.line = line
        self.title = title
        self.steps = steps
        self.protocols = [int(p) for p in settings.get("proto", "2 3").split()]
        self.events = settings.get("events", "AKE")
        self.differs = settings.get("differs", "").split()
        self.follower_differs = settings.get("follower", "").split()  # on a server that forwards to another
        self.state = settings.get("state", "on") != "off"
        self.server = settings.get("server", "")
        self.any_order = settings.get("order") == "any"  # of the events

    @property
    def name(self):
        return f"{self.file}:{self.line}"


def read_file(path):
    """All cases of one file, in order."""
    with open(path, encoding="utf-8") as file:
        return read_text(os.path.basename(path), file.read())


def read_text(name, text):
    """All cases of a text, in order; `name` is what the cases are called by."""
    reader = _FileReader(name)
    for number, line in enumerate(text.split("\n"), 1):
        try:
            reader.take(number, line)
        except (CaseError, ValueError) as error:
            raise CaseError(f"{name}:{number}: {error}") from None
    reader.end_paragraph()
    return reader.cases


class _FileReader:
    """Collects lines into paragraphs, and paragraphs into cases."""

    def __init__(self, file):
        self.file = file
        self.cases = []
        self.title = ""
        self.section = {}  # settings of the section; a paragraph of settings only adds to them
        self.local = {}
        self.lines = []

    def take(self, number, line):
        text = line.strip()
        if not text:
            self.end_paragraph()
        elif text.startswith("=="):
            self.end_paragraph()
            self.title, self.section = text.strip("= "), {}
        elif text.startswith("#"):
            pass
        elif text.split(":")[0] in DIRECTIVES and (":" in text or text == "each"):
            key, _, value = text.partition(":")
            self.local[key] = value.strip() or "on"
        elif text.startswith("=>"):
            if not self.lines:
                raise CaseError("=> without a command before it")
            self.lines[-1][-1].expected = text[2:].strip()
        else:
            self.lines.append(parse_line(number, text))

    def end_paragraph(self):
        settings = dict(self.section, **self.local)
        if not self.lines:
            self.section = settings
        elif "each" in settings:
            for steps in self.lines:
                for step in steps:
                    self._add(step.line, settings, [step])
        else:
            self._add(self.lines[0][0].line, settings, [step for steps in self.lines for step in steps])
        self.lines, self.local = [], {}

    def _add(self, line, settings, steps):
        before = [step for text in settings.get("setup", "").split(" ; ") if text.strip()
                  for step in parse_line(line, text.strip())]
        self.cases.append(Case(self.file, line, self.title, settings, before + steps))


def expand(text):
    """All texts that the alternatives {a|b} stand for, in order. {|a} is "nothing or a"."""
    match = ALTERNATIVES.search(text)
    if not match:
        return [text]
    choices = match.group(1).split("|")
    return list(itertools.chain.from_iterable(expand(text[:match.start()] + c + text[match.end():]) for c in choices))


def parse_line(number, text):
    """One line as steps: one, or as many as its alternatives make."""
    return [_parse_step(number, variant) for variant in expand(text)]


def _parse_step(number, text):
    conn, direction, rest = STEP_HEAD.match(text).groups()
    normalisers = []
    while True:
        match = NORMALISER.match(rest)
        if not match:
            break
        normalisers.append((match.group(1), match.group(2)))
        rest = rest[match.end():]
    if direction == "<":
        what = rest.strip()
        awaited = what if what == "eof" or what.startswith("until ") else int(what)
        return Step(number, int(conn), awaited, [], normalisers, text)
    return Step(number, int(conn or 1), None, split_words(rest), normalisers, text)


def split_words(text):
    """Words as redis-cli splits them (quotes and escapes), with our % and $ words. An escape needs double quotes."""
    words, pos = [], 0
    while True:
        while pos < len(text) and text[pos] in " \t":
            pos += 1
        if pos >= len(text):
            return words
        if text[pos] in "\"'":
            word, pos = _quoted(text, pos)
            words.append(word)
            continue
        end = pos
        while end < len(text) and text[end] not in " \t":
            end += 1
        words.extend(_bare_word(text[pos:end]))
        pos = end


def _quoted(text, pos):
    quote, pos, out = text[pos], pos + 1, bytearray()
    while pos < len(text) and text[pos] != quote:
        if text[pos] != "\\":
            out += text[pos].encode()
        elif quote == '"' and re.match(r"\\x[0-9a-fA-F]{2}", text[pos:]):
            out.append(int(text[pos + 2:pos + 4], 16))
            pos += 3
        else:
            pos += 1
            out += ESCAPES.get(text[pos], text[pos].encode()) if quote == '"' else text[pos].encode()
        pos += 1
    if pos >= len(text):
        raise CaseError("a quote is not closed")
    if pos + 1 < len(text) and text[pos + 1] not in " \t":
        raise CaseError("a closing quote must end the word")
    return bytes(out), pos + 1


def _bare_word(word):
    """%rep(x,3) is xxx; %seq(f,3) is f0 f1 f2; %pairs(f,v,2) is f0 v0 f1 v1; %now+5, %nowms-5 are times; $name was saved."""
    if word[0] == "$" and len(word) > 1 and word[1:].isalnum():
        return [Variable(word[1:])]
    clock = re.fullmatch(r"%(now|nowms)([+-]\d+)?", word)
    if clock:
        return [Clock(clock.group(1) == "nowms", int(clock.group(2) or 0))]
    call = re.fullmatch(r"%(rep|seq|pairs)\(([^()]*)\)", word)
    if not call:
        return [word.encode()]
    *texts, count = call.group(2).split(",")
    count = int(count)
    if call.group(1) == "rep":
        return [texts[0].encode() * count]
    if call.group(1) == "seq":
        return [f"{texts[0]}{i}".encode() for i in range(count)]
    return [f"{text}{i}".encode() for i in range(count) for text in texts]


def resolve(words, variables, start_time):
    """The words as bytes, with what the server's earlier answers and the case's start time fill in."""
    out = []
    for word in words:
        if isinstance(word, Variable):
            if word.name not in variables:
                raise CaseError(f"nothing was saved as {word.name}")
            out.append(variables[word.name])
        elif isinstance(word, Clock):
            now = int(start_time * 1000) + word.offset if word.milliseconds else int(start_time) + word.offset
            out.append(b"%d" % now)
        else:
            out.append(word)
    return out


def now():
    return time.time()

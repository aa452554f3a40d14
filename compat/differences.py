"""Reads differences.md: the names of the deliberate differences from redis-server."""

import os
import re

MARK = re.compile(r"^<!-- difference: ([a-z0-9-]+) -->$")
PATH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "differences.md")


def names(path=PATH):
    """The names in the list's order. A name that is there twice is an error."""
    found = []
    with open(path, encoding="utf-8") as file:
        for line in file:
            match = MARK.match(line.rstrip("\n"))
            if match:
                found.append(match.group(1))
    if len(set(found)) != len(found):
        raise ValueError(f"{path} has a name twice")
    return found

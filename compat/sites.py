"""Databases for servers under comparison that keep their state in PostgreSQL: a private cluster for this process, made when it is
first wanted and gone with it, and in it a new database for each site; and clusters for sites that are to be linked."""

import atexit
import functools
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "faults"))

from cluster import LINK_SETTINGS, PROGRAMS, Cluster  # noqa: E402  (the path is set above)


def is_there():
    return os.access(PROGRAMS / "postgres", os.X_OK)


@functools.cache
def _cluster():
    cluster = Cluster()
    atexit.register(cluster.remove)
    return cluster


def new_database():
    """(URL for --backend, the password in it, which a server must tell nobody) of an empty database."""
    cluster = _cluster()
    count = int(cluster.sql("SELECT count(*) FROM pg_database", "postgres"))
    name = f"site{count}"
    cluster.sql(f"CREATE DATABASE {name} OWNER isthmus", "postgres")
    return f"{cluster.url().rpartition('/')[0]}/{name}", cluster.password


def linked_databases(count):
    """The same for sites that are to be linked: each database is in a cluster of its own."""
    clusters = [Cluster(links=True, **LINK_SETTINGS) for _ in range(count)]
    for cluster in clusters:
        atexit.register(cluster.remove)
    return [(cluster.url(), cluster.password) for cluster in clusters]

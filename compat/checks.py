"""Counts checks and says at once what failed."""

import threading


class Checks:
    """Safe for use from several threads."""

    def __init__(self):
        self.passed = 0
        self.failed = 0
        self.lock = threading.Lock()

    def check(self, what, good, detail=""):
        """Counts one check; when it is not good, prints it with its detail. Gives `good`."""
        with self.lock:
            if good:
                self.passed += 1
            else:
                self.failed += 1
                print(f"FAIL {what}" + (f": {detail}" if detail != "" else ""), flush=True)
        return bool(good)

    def count(self, passed, failed):
        """Adds what others have counted, and said."""
        with self.lock:
            self.passed += passed
            self.failed += failed

    def equal(self, what, actual, expected):
        return self.check(what, actual == expected, f"{actual!r} instead of {expected!r}")

    def finish(self):
        """Prints the counts; the exit status."""
        print(f"{self.passed} passed, {self.failed} failed", flush=True)
        return 1 if self.failed or not self.passed else 0

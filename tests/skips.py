"""Which tests may be skipped, and why: any other skip fails the run, so that none disappears unseen."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

EXPLAINED = {
    r"there is no Chromium": "the page's tests need a browser; .ci/run installs one on Debian",
    r"there is no GPU": "only a GPU can run it",
    r"needs \d+ GPUs": "only several GPUs can run it",
    r"the random streams were recorded with torch \S+": "another torch draws other numbers",
    r"asks the kernel": "only Linux ends a program with the one that started it",
    r"not a git checkout": "an unpacked archive has no list of tracked files",
    r"this matplotlib has no sample photograph": "some distributions leave matplotlib's samples out",
}


def reason_of(longrepr: object) -> str:
    """Return the reason of a skipped test's report, whose `longrepr` is (file, line, reason)."""
    text = longrepr[2] if isinstance(longrepr, tuple) else str(longrepr)
    return str(text).removeprefix("Skipped: ")


def unexplained(reasons: Iterable[str]) -> Counter[str]:
    """Return how often each reason occurs that no pattern of EXPLAINED matches from its beginning."""
    return Counter(reason for reason in reasons if not any(re.match(known, reason) for known in EXPLAINED))


def summary(reasons: Iterable[str]) -> str:
    """Return one line: how many tests were skipped, and for which reasons."""
    counted = Counter(reasons)
    listed = "; ".join(f"{count} x {reason}" for reason, count in counted.most_common())
    return f"skipped tests: {counted.total()}" + (f" ({listed})" if listed else "")

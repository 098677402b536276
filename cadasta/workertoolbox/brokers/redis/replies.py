"""Which errors of Redis pass: a failover, a restart, a full memory or disk.

It names redis-py's classes without importing it, which is not everywhere.
"""

from __future__ import annotations

import re

#: How the replies begin with which a server refuses commands that it will take again, or that
#: another server takes: a replica, one that loads, has lost its master, its cluster's other nodes
#: or too many replicas, has no room on its disk or in its memory, is busy with a script, or has as
#: many clients as it takes. Alone, in a pipeline, and in a transaction that was discarded.
_PASSING_REPLIES = re.compile(
    r"(^|caused error: |because of: )(ERR )?"
    r"(BUSY |CLUSTERDOWN|LOADING|MASTERDOWN|MISCONF|NOREPLICAS|OOM|READONLY|TRYAGAIN|UNBLOCKED"
    r"|max number of clients)"
)
#: redis-py's classes of such errors; it takes the word away then.
_PASSING_CLASSES = frozenset(
    f"redis.exceptions.{name}"
    for name in ("ReadOnlyError", "OutOfMemoryError", "ClusterDownError", "TryAgainError")
)


def passes(error: BaseException) -> bool:
    """Whether a server answered with it that takes commands again later, or another server does."""
    names = {f"{cls.__module__}.{cls.__qualname__}" for cls in type(error).__mro__}
    return bool(names & _PASSING_CLASSES or _PASSING_REPLIES.search(str(error)))

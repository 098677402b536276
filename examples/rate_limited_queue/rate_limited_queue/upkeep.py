"""What a server does beside its requests: give expired jobs back, and remove what is over."""

from __future__ import annotations

import asyncio
import logging
import time

from . import operations
from .errors import StoreUnavailable
from .scripts import base_key
from .store import Store

logger = logging.getLogger(__name__)

#: Leases that one script call looks at; Redis serves others between two calls.
CHUNK = 100
#: Seconds without a mark after which a type without jobs is forgotten.
RETIRE_AFTER = 900
#: Minutes for which counters are kept; then they are freed in the background.
COUNTER_MINUTES = 11


async def keep_up(store: Store) -> None:
    """Look for expired jobs every ``job_requeue_interval``, for ever, through all outages."""
    cleaned = 0.0
    while True:
        await asyncio.sleep(store.settings.job_requeue_interval / 1000)
        try:
            types = await store.types()
            # Those that this server uses itself, too: somebody may have emptied the store.
            for queue_type in {*types, *store.recent_types(RETIRE_AFTER)}:
                await requeue_expired(store, queue_type)
            if time.monotonic() - cleaned > 60:
                await clean(store, types)
                cleaned = time.monotonic()
        except StoreUnavailable as error:
            logger.warning("No expired jobs were requeued: %s", error)
        except Exception:
            # Whatever it was, the jobs of all other types must not wait for a restart.
            logger.exception("No expired jobs were requeued")


async def requeue_expired(store: Store, queue_type: str) -> int:
    """Give back all expired jobs of a type; how many leases had ended.

    Raises:
        StoreUnavailable: Redis is away.
    """
    total = 0
    while True:
        count = await store.run(
            operations.requeue(queue_type, CHUNK, store.settings.dead_letter_limit)
        )
        total += count
        if count < CHUNK:
            return total
        await asyncio.sleep(0)


async def clean(store: Store, types: dict[str, float]) -> None:
    """Free old counters, and forget types that nobody uses.

    Raises:
        StoreUnavailable: Redis is away.
    """
    minute = int(time.time() // 60 * 60_000_000)
    for queue_type, marked in types.items():
        base = base_key(store.settings.redis_key_prefix, queue_type)
        old = [minute - back * 60_000_000 for back in range(COUNTER_MINUTES, COUNTER_MINUTES + 4)]
        await store.execute("UNLINK", *(f"{base}m:{one}" for one in old))
        limit = time.time() - RETIRE_AFTER
        if marked < limit and await store.run(operations.retire(queue_type)):
            await store.unmark(queue_type, limit)

"""The queue ``reply``: send a message, once, however often this runs and whatever dies."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from celery.exceptions import Retry

from .. import ids
from ..celery import app
from ..errors import OptedOutError, RejectedError, UnavailableError
from ..providers import Provider, Sent
from ..publishing import again, publish_next
from ..runtime import database, provider
from ..settings import LONGEST_COUNTDOWN, settings
from ..store import outbound
from ..store.outbound import Claim, Nothing, Wait
from ..store.subscribers import end_subscriptions
from .base import Step, back_off

#: Seconds that an attempt may take beyond the waits for the provider.
LEASE_MARGIN = 5.0


@app.task(base=Step, bind=True, name="reply.send")
def send(self: Any, message_id: str, attempts: int) -> dict[str, Any]:
    """Send a message, or find that there is nothing to do.

    Args:
        message_id: which one.
        attempts: how many attempts were begun before this task was published.
    """
    chosen = provider()
    # The time-out counts for connecting and for each part of an answer. Where a second request
    # would be a second text, nobody begins one while the slowest answer may still come.
    lease = settings().send_timeout * (2 if chosen.recognises_repeats else 6) + LEASE_MARGIN
    with database().transaction() as connection:
        claim = outbound.claim(connection, message_id, attempts, lease)
    if isinstance(claim, Nothing):
        return {"message_id": message_id, "state": claim.reason}
    if isinstance(claim, Wait):
        raise again(self, min(claim.seconds + 0.1, LONGEST_COUNTDOWN))
    try:
        sent = attempt(chosen, claim)
    except RejectedError as error:
        return fail(claim, str(error), is_opted_out=isinstance(error, OptedOutError))
    except UnavailableError as error:
        if claim.attempts >= settings().send_attempts:
            return fail(claim, f"given up after {claim.attempts} attempts: {error}")
        raise try_later(self, claim, error) from error
    with database().transaction() as connection:
        outbound.settle_sent(connection, claim, sent.provider_ref)
    return {"message_id": message_id, "state": "sent", "attempts": claim.attempts}


def attempt(chosen: Provider, claim: Claim) -> Sent:
    """Ask the provider to send a message, unless an earlier attempt has had it sent."""
    message = claim.message
    if claim.in_doubt and not chosen.recognises_repeats:
        with database().reading() as connection:
            known = outbound.known_refs(connection, chosen.name, message.mobile_number)
        try:
            found = chosen.find(message, claim.tried_at, known)
        except RejectedError as error:  # about the question, not about the text
            raise UnavailableError(f"looking for the text: {error}") from error
        if found is not None:
            return found
    return chosen.reply(message) if message.request_id else chosen.send(message)


def fail(claim: Claim, words: str, is_opted_out: bool = False) -> dict[str, Any]:
    """Note that a message will not be sent, and where its subscriber told the provider to stop."""
    with database().transaction() as connection:
        outbound.settle_failed(connection, claim, words)
        if is_opted_out:
            end_subscriptions(connection, claim.subscriber_id, words)
    return {"message_id": claim.message.message_id, "state": "failed", "error": words}


def try_later(task: Any, claim: Claim, error: UnavailableError) -> Retry:
    """Publish the next attempt, then give the lease back: never the other way round."""
    wait = back_off(claim.attempts - 1, settings().send_wait, settings().send_max_wait)
    if error.retry_after is not None:
        wait = max(wait, error.retry_after)
    due = datetime.now(timezone.utc) + timedelta(seconds=wait)
    args = [claim.message.message_id, claim.attempts]
    retry = again(task, min(wait, LONGEST_COUNTDOWN), args)
    with database().transaction() as connection:
        outbound.release(connection, claim, str(error), in_doubt=error.in_doubt, not_before=due)
    return retry


def publish_reply(message_id: str, attempts: int = 0) -> None:
    """Put a message on the queue ``reply``."""
    publish_next("reply.send", [message_id, attempts], ids.send_id(message_id))

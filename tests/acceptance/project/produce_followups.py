"""Schedules tasks whose follow-ups are handed on."""

from __future__ import annotations

import json

from celery import chain
from followups import delegate, delegate_badly, note_error, note_result

if __name__ == "__main__":
    delegate.apply_async((1,), link=note_result.s("linked"))
    chain(delegate.s(2), note_result.s("chained"), note_result.s("chained-again")).apply_async()
    delegate_badly.apply_async(link_error=note_error.s())
    print(json.dumps({}))

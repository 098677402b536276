"""A local provider: takes texts as Chikka and Twilio do, and posts texts and receipts.

It is an HTTP server of its own, for demonstrations and tests; it can be told to misbehave.
"""

from __future__ import annotations

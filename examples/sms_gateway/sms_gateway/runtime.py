"""What a process of the gateway works with, made at first use."""

from __future__ import annotations

from functools import cache

from .database import Database
from .providers import Provider, make_provider
from .settings import settings


@cache
def database() -> Database:
    """The gateway's database."""
    return Database(settings().database_url)


@cache
def provider() -> Provider:
    """The provider that texts go to."""
    return make_provider(settings())

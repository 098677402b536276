"""Connections of redis-py, as the settings name them."""

from __future__ import annotations

import socket
from typing import Any

import redis
import redis.asyncio as aioredis
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from . import embedded
from .settings import Settings


def _credentials(settings: Settings) -> dict[str, Any]:
    return {
        "username": settings.redis_username or None,
        "password": settings.redis_password or None,
    }


def _address(settings: Settings) -> dict[str, Any]:
    """What redis-py's clients and connections take alike."""
    if settings.redis_conn_type == "tcp_sock":
        # A subscription that is silent may have lost its server without knowing it.
        options = {
            getattr(socket, name): value
            for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
            if hasattr(socket, name)
        }
        return {
            "host": settings.redis_host,
            "port": settings.redis_port,
            "socket_keepalive": True,
            "socket_keepalive_options": options,
        }
    if settings.redis_conn_type == "unix_sock":
        return {"path": settings.redis_unix_socket_path}
    return {"path": str(embedded.socket_path(settings.redis_directory))}


def pipelined_connection(settings: Settings) -> AbstractConnection:
    """Return a connection for :class:`~.connection.Pipeline`, not yet connected."""
    arguments = {
        **_address(settings),
        **_credentials(settings),
        "db": settings.redis_db,
        "socket_connect_timeout": settings.redis_timeout,
        "socket_timeout": None,  # The pipeline watches the time of all its commands at once.
        "retry": AsyncRetry(NoBackoff(), 0),
    }
    if "path" in arguments:
        return UnixDomainSocketConnection(**arguments)
    return (SSLConnection if settings.redis_ssl else Connection)(**arguments)


def listener(settings: Settings) -> aioredis.Redis:
    """Return an asyncio client for subscriptions."""
    address = _address(settings)
    if "path" in address:
        address = {"unix_socket_path": address["path"]}
    return aioredis.Redis(
        **address,
        **_credentials(settings),
        db=settings.redis_db,
        ssl=settings.redis_ssl,
        socket_connect_timeout=settings.redis_timeout,
        socket_timeout=None,
        retry=AsyncRetry(NoBackoff(), 0),
    )


def cluster(settings: Settings) -> aioredis.RedisCluster:
    """Return an asyncio client of a Redis cluster."""
    return aioredis.RedisCluster(
        host=settings.redis_host,
        port=settings.redis_port,
        ssl=settings.redis_ssl,
        socket_connect_timeout=settings.redis_timeout,
        socket_timeout=settings.redis_timeout,
        **_credentials(settings),
    )


def blocking(settings: Settings) -> Any:
    """Return a client that blocks: ``redis.Redis`` or ``redis.RedisCluster``."""
    common: dict[str, Any] = {
        **_credentials(settings),
        "socket_connect_timeout": settings.redis_timeout,
        "socket_timeout": settings.redis_timeout,
        "ssl": settings.redis_ssl,
    }
    address = _address(settings)
    if settings.redis_clustered:
        return redis.RedisCluster(**address, **common)
    if "path" in address:
        address = {"unix_socket_path": address["path"]}
    return redis.Redis(**address, **common, db=settings.redis_db, retry=Retry(NoBackoff(), 0))

"""The settings: the reference's file, environment variables, and errors that name what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from rate_limited_queue import fields
from rate_limited_queue.errors import InvalidField, SettingsError, TooLarge
from rate_limited_queue.scripts import base_key
from rate_limited_queue.settings import load


def write(folder: Path, text: str) -> Path:
    path = folder / "queue.conf"
    path.write_text(text)
    return path


def test_a_file_with_comments_behind_its_values(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """[sharq]
job_expire_interval : 1500 ; in milliseconds
default_job_requeue_limit = 3
enable_requeue_script : false
[redis]
key_prefix : my_prefix ; every key
host : redis.example
password : with%percent;semicolon ; a comment
""",
    )
    found = load(path, {})
    assert found.job_expire_interval == 1500
    assert found.default_job_requeue_limit == 3
    assert found.enable_requeue_script is False
    assert found.redis_key_prefix == "my_prefix"
    assert found.redis_password == "with%percent;semicolon"
    assert found.redis_conn_type == "tcp_sock", "it names a host"
    assert "semicolon" not in repr(found)


def test_defaults_and_environment(tmp_path: Path) -> None:
    assert load(None, {}).redis_conn_type == "embedded"
    path = write(tmp_path, "[sharq-server]\nport: 1\n[redis]\nport: 2\n")
    environ = {"RLQ_CONFIG": str(path), "RLQ_REDIS_PORT": "3", "RLQ_SERVER_TOKEN": "hidden"}
    found = load(None, environ)
    assert (found.port, found.redis_port, found.token) == (1, 3, "hidden")
    assert "hidden" not in repr(found)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[sharq]\njob_expire_interval: soon", r"\[sharq\] job_expire_interval is 'soon'"),
        ("[sharq]\njob_expire_interval: 0", "use 1 or more"),
        ("[sharq]\nenable_requeue_script: maybe", "use true or false"),
        ("[redis]\nkey_prefix: a{b}", "key_prefix"),
        ("[redis]\nconn_type: unix_sock\nclustered: true", "clustered needs"),
        ("[sharq-server]\nport: 70000", r"\[sharq-server\] port is 70000: use 65535 or less"),
        ("no section\npassword=s3cret", "cannot be parsed at line 1"),
        ("password=s3cret", "cannot be parsed at line 1"),
        ("[redis]\npassword s3cret", "cannot be parsed at line 2"),
        ("[redis]\npassword=s3cret\npassword=s3cret", "already exists"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        load(write(tmp_path, text), {})
    assert "s3cret" not in str(caught.value)


def test_keys_of_a_type_share_a_slot_and_begin_with_the_prefix() -> None:
    assert base_key("sharq_server", "sms") == "sharq_server:{sms}:"


def test_payload_text() -> None:
    assert fields.payload_text({"ä": 1}, 100) == '{"ä":1}'.encode()
    with pytest.raises(TooLarge):
        fields.payload_text({"x": "a" * 100}, 100)
    with pytest.raises(InvalidField, match="`payload`"):
        fields.payload_text({"x": float("nan")}, 100)

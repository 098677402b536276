"""The protocol by itself: any split of any bytes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from message_queue.errors import ProtocolError, SettingsError
from message_queue.protocol import FrameReader, Framing, Handshake, HandshakeReader

FRAMING = Framing.from_secrets("a", "b")
#: A short alphabet makes HEAD and TAIL that overlap with themselves and with bodies.
SHORT = Framing(b"aab", b"aba")
BODIES = st.lists(st.binary(max_size=80), max_size=6)


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    """``stream`` in parts."""
    marks = sorted({place % (len(stream) + 1) for place in places})
    return [stream[a:b] for a, b in zip([0, *marks], [*marks, len(stream)], strict=True)]


def read(reader: FrameReader, parts: list[bytes]) -> list[bytes]:
    """All bodies."""
    return [body for part in parts for body in reader.feed(part)]


@given(bodies=BODIES, places=st.lists(st.integers(0, 10_000), max_size=30))
def test_any_split_gives_the_same_bodies(bodies: list[bytes], places: list[int]) -> None:
    stream = b"".join(FRAMING.frame(body) for body in bodies)
    reader = FrameReader(FRAMING)
    assert read(reader, cut(stream, places)) == bodies
    assert reader.error is None and reader.is_between_frames


@given(bodies=BODIES)
def test_a_byte_at_a_time(bodies: list[bytes]) -> None:
    stream = b"".join(FRAMING.frame(body) for body in bodies)
    parts = [stream[at : at + 1] for at in range(len(stream))]
    assert read(FrameReader(FRAMING), parts) == bodies


@given(stream=st.binary(max_size=400), places=st.lists(st.integers(0, 10_000), max_size=30))
def test_garbage_is_the_same_in_any_split(stream: bytes, places: list[int]) -> None:
    whole, parted = FrameReader(FRAMING), FrameReader(FRAMING)
    assert read(whole, [stream]) == read(parted, cut(stream, places))
    assert str(whole.error) == str(parted.error)


@given(
    stream=st.text("ab \n", max_size=60).map(str.encode),
    places=st.lists(st.integers(0, 100), max_size=10),
)
def test_frames_that_look_like_their_ends(stream: bytes, places: list[int]) -> None:
    whole, parted = FrameReader(SHORT, 20), FrameReader(SHORT, 20)
    assert read(whole, [stream]) == read(parted, cut(stream, places))
    assert str(whole.error) == str(parted.error)


@given(body=st.text("ab", max_size=12).map(str.encode))
def test_what_can_be_carried_comes_out(body: bytes) -> None:
    found = FrameReader(SHORT).feed(SHORT.frame(body))
    assert (found[:1] == [body]) is SHORT.can_carry(body)


@given(body=st.binary(max_size=300), limit=st.integers(1, 300), step=st.integers(1, 100))
def test_the_limit_is_exact(body: bytes, limit: int, step: int) -> None:
    reader = FrameReader(FRAMING, limit)
    stream = FRAMING.frame(body)
    parts = [stream[at : at + step] for at in range(0, len(stream), step)]
    found = read(reader, parts)
    assert (found == [body]) is (len(body) <= limit)
    assert (reader.error is not None) is (len(body) > limit)


def test_a_reader_keeps_no_more_than_the_limit() -> None:
    reader = FrameReader(FRAMING, 100)
    reader.feed(FRAMING.head + b"x" * 163)
    assert not is_broken(reader)
    reader.feed(b"x")
    assert is_broken(reader)
    assert reader.feed(FRAMING.frame(b"later")) == []


def is_broken(reader: FrameReader) -> bool:
    """Whether the stream is."""
    return isinstance(reader.error, ProtocolError)


def test_white_space_between_frames_is_ignored() -> None:
    stream = b" \r\n" + FRAMING.frame(b" a\n") + b"\n\n" + FRAMING.frame(b"b")
    assert FrameReader(FRAMING).feed(stream) == [b" a\n", b"b"]


NAMES = st.text(st.characters(codec="utf-8"), max_size=40)


@given(
    topic=NAMES,
    rest=st.binary(max_size=20),
    places=st.lists(st.integers(0, 1000), max_size=20),
    write=st.sampled_from([repr, json.dumps, lambda found: " \n" + json.dumps(found, indent=1)]),
)
def test_any_split_of_a_handshake(
    topic: str, rest: bytes, places: list[int], write: object
) -> None:
    assert callable(write)
    stream = write({"type": "PRODUCER", "topic": topic}).encode() + rest
    reader = HandshakeReader()
    parts = iter(cut(stream, places))
    handshake, after = next(found for found in map(reader.feed, parts) if found is not None)
    assert handshake == Handshake("PRODUCER", topic)
    assert after + b"".join(parts) == rest


@given(stream=st.binary(max_size=1500), places=st.lists(st.integers(0, 2000), max_size=10))
def test_no_garbage_breaks_the_handshake(stream: bytes, places: list[int]) -> None:
    reader = HandshakeReader()
    try:
        for part in cut(b"{" + stream, places):
            if reader.feed(part) is not None:
                break
    except ProtocolError as error:
        assert str(error)


@pytest.mark.parametrize(
    "text",
    [
        b"hello",
        b"}",
        b"[1]",
        b"{}",
        b"{1: 2}",
        b"{'type': 'PRODUCER'}",
        b"{'type': 'PRODUCER', 'topic': 5}",
        b"{'type': 'OTHER', 'topic': 'a'}",
        b"{'type': ['PRODUCER'], 'topic': 'a'}",
        b"{'type': __import__('os'), 'topic': 'a'}",
        b"{'type': 'PRODUCER', 'topic': '\xff'}",
        b"{" * 500 + b"}" * 500,
        b"{'a': " + b"-" * 900 + b"1}",
        b"{'a': '" + b"x" * 1100,
    ],
)
def test_a_handshake_that_is_refused(text: bytes) -> None:
    with pytest.raises(ProtocolError):
        HandshakeReader().feed(text)


def test_secrets_are_hashed_and_hidden() -> None:
    assert FRAMING.head == (
        b"ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"  # of "a"
    )
    assert "ca97" not in repr(FRAMING)
    for secrets in (("", "b"), ("a", ""), ("a", "a")):
        with pytest.raises(SettingsError, match="SECRET"):
            Framing.from_secrets(*secrets)

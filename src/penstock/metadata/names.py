"""Topic names and ids, by Kafka's rules (org.apache.kafka.common.internals.Topic, Uuid)."""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64
from os import urandom

MAX_NAME_LENGTH = 249
CLUSTER_METADATA_TOPIC = "__cluster_metadata"
OFFSETS_TOPIC = "__consumer_offsets"
TRANSACTIONS_TOPIC = "__transaction_state"
SHARE_STATE_TOPIC = "__share_group_state"
INTERNAL_TOPICS = frozenset((OFFSETS_TOPIC, TRANSACTIONS_TOPIC, SHARE_STATE_TOPIC))
ZERO_ID = bytes(16)
_RESERVED_IDS = (ZERO_ID, bytes(15) + b"\x01")
_LEGAL = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


def name_problem(name: str) -> str | None:
    """What is wrong with a topic name, in Kafka's words; None when it is fine."""
    if not name:
        return "Topic name is invalid: the empty string is not allowed"
    if name in (".", ".."):
        return f"Topic name is invalid: '{name}' is not allowed"
    if len(name) > MAX_NAME_LENGTH:
        return (
            f"Topic name is invalid: the length of '{name}' is longer than the max allowed "
            f"length {MAX_NAME_LENGTH}"
        )
    if not _LEGAL.issuperset(name):
        return (
            f"Topic name is invalid: '{name}' contains one or more characters other than ASCII "
            "alphanumerics, '.', '_' and '-'"
        )
    return None


def collision_key(name: str) -> str:
    """Names with equal keys collide: metric names cannot tell '.' from '_'."""
    return name.replace(".", "_")


def new_topic_id() -> bytes:
    """A random UUID (version 4), none of Kafka's reserved ones, and none whose text begins with
    '-' (command lines would take it for an option)."""
    while True:
        raw = bytearray(urandom(16))
        raw[6] = raw[6] & 0x0F | 0x40
        raw[8] = raw[8] & 0x3F | 0x80
        made = bytes(raw)
        if made not in _RESERVED_IDS and not id_text(made).startswith("-"):
            return made


def id_text(topic_id: bytes) -> str:
    """Kafka's text of a UUID: URL-safe base64 without padding."""
    text = b2a_base64(topic_id, newline=False).decode().rstrip("=")
    return text.replace("+", "-").replace("/", "_")


def id_from_text(text: str) -> bytes:
    """ValueError unless it is the text of 16 bytes."""
    raw = a2b_base64(text.replace("-", "+").replace("_", "/") + "==")
    if len(raw) != 16:
        raise ValueError(f"{text} is not a topic id")
    return raw

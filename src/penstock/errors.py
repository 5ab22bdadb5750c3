"""Exceptions that cross rooms. Each message is one sentence a user can act on."""

from __future__ import annotations


class PenstockError(Exception):
    """Base of everything Penstock raises on purpose."""


class ConfigError(PenstockError):
    """A configuration value is impossible; the message names key, value and what is allowed."""


class StartError(PenstockError):
    """The broker cannot start: port in use, directory locked, unreadable data."""


class EngineError(PenstockError):
    """The native engine refused or failed. `kafka_code` is the Kafka error code to answer with."""

    def __init__(self, message: str, kafka_code: int = -1) -> None:
        super().__init__(message)
        self.kafka_code = kafka_code


class KafkaError(PenstockError):
    """A request, or a part of one, is answered with `code` (Kafka's number) and `message`."""

    def __init__(self, code: int, message: str | None = None) -> None:
        super().__init__(message or f"error {code}")
        self.code = code
        self.message = message


class ForkedError(PenstockError):
    """The broker belongs to the parent process; after fork the child must not use it."""

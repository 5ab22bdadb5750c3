"""The base of every generated message class: equality and repr over the slots, nothing else."""

from __future__ import annotations


class Message:
    """A Kafka message or a struct of one. Mutable, compared by value."""

    __slots__: tuple[str, ...] = ()

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    # Mutable, so not hashable; object declares a method here and no type can take it away.
    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__)
        return f"{type(self).__name__}({fields})"

"""A one-shot result without an event loop: what the state machines and tests wait on.

It has asyncio.Future's `add_done_callback`, `done`, `result` and `exception`, but calls its
callbacks at once. That keeps the order of effects visible in one stack and costs no loop turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

T = TypeVar("T")
# The constructors' own: a method of the bare class knows nothing of the class's parameter.
V = TypeVar("V")


class Deferred(Generic[T]):
    """A value that arrives once. Not thread-safe: it belongs to the control loop's thread."""

    __slots__ = ("_callbacks", "_done", "_error", "_value")

    def __init__(self) -> None:
        self._callbacks: list[Callable[[Deferred[T]], object]] = []
        self._done = False
        self._error: BaseException | None = None
        self._value: T | None = None

    @staticmethod
    def of(value: V) -> Deferred[V]:
        """One that is already done."""
        made: Deferred[V] = Deferred()
        made.set_result(value)
        return made

    @staticmethod
    def failed(error: BaseException) -> Deferred[Any]:
        """One that has already failed: it stands for any result."""
        made: Deferred[Any] = Deferred()
        made.set_exception(error)
        return made

    def done(self) -> bool:
        return self._done

    def result(self) -> T:
        """The value; raises what `set_exception` was given. Calling it before `done` is a bug."""
        if not self._done:
            raise RuntimeError("result is not there yet")
        if self._error is not None:
            raise self._error
        # Set by now, and T may itself allow None: no test could tell the checker.
        return self._value  # type: ignore[return-value]

    def exception(self) -> BaseException | None:
        if not self._done:
            raise RuntimeError("result is not there yet")
        return self._error

    def set_result(self, value: T) -> None:
        self._value = value
        self._finish()

    def set_exception(self, error: BaseException) -> None:
        self._error = error
        self._finish()

    def add_done_callback(self, callback: Callable[[Deferred[T]], object]) -> None:
        """Called with this object when the value is there; at once when it already is."""
        if self._done:
            callback(self)
        else:
            self._callbacks.append(callback)

    def _finish(self) -> None:
        if self._done:
            raise RuntimeError("result was already set")
        self._done = True
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self)

    def __await__(self) -> Generator[Any, None, T]:
        if not self._done:
            # Only coroutines need a loop; the import stays off the start path.
            import asyncio

            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

            def wake(_: object) -> None:
                if not future.done():
                    future.set_result(None)

            self.add_done_callback(wake)
            yield from future.__await__()
        return self.result()

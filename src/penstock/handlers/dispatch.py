"""From a control request to its answer: decode, call the handler, encode, respond.

Owner: the control loop. Requests of one drain start in order. A handler that fails is answered
with UNKNOWN_SERVER_ERROR in its response's shape and logged once; it never reaches the loop. Bytes
that the codec refuses close their connection.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from penstock.errors import EngineError, KafkaError
from penstock.handlers import HANDLERS
from penstock.handlers.context import REDISPATCH, Context, RequestHeader

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from penstock.engine_port import ControlRequest, EnginePort
    from penstock.protocol.codec import MessageCodec

_log = logging.getLogger("penstock.control")

_UNKNOWN_SERVER_ERROR = -1
_FIND_COORDINATOR = 10
# Handlers of the group coordinator get ctx.groups instead of ctx.
_GROUP_KEYS = frozenset((8, 9, 10, 11, 12, 13, 14, 15, 16, 42, 47))


class Dispatcher:
    """Knows the requests in progress, by token."""

    def __init__(self, ctx: Context, engine: EnginePort, codec: MessageCodec) -> None:
        self._ctx = ctx
        self._engine = engine
        self._codec = codec
        self._handlers: dict[int, Callable[..., Any]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._in_progress = 0
        self._failures = 0

    def statistics(self) -> dict[str, int]:
        return {"in_progress": self._in_progress, "failures": self._failures}

    def drain(self, limit: int = 256) -> None:
        """Take what the engine has for us and start on it."""
        for request in self._engine.drain(limit):
            self.start(request)

    def start(self, raw: ControlRequest) -> None:
        try:
            wire, request = self._codec.decode_request(
                raw.api_key, raw.api_version, bytes(raw.frame)
            )
            handler = self._handler(raw.api_key)
        except (ValueError, LookupError) as error:
            _log.warning(
                "request of %s closed its connection: key %d version %d: %s",
                raw.client_host,
                raw.api_key,
                raw.api_version,
                error,
            )
            self._engine.close_connection(raw.token)
            return
        except Exception:
            # A module that cannot be read now (no descriptor left, say) costs this request alone.
            _log.exception("key %d could not be handled", raw.api_key)
            self._engine.close_connection(raw.token)
            return
        header = RequestHeader(
            raw.api_key,
            raw.api_version,
            wire.correlation_id,
            wire.client_id,
            raw.client_host,
            raw.listener,
            raw.principal,
        )
        self._in_progress += 1
        try:
            result = self._call(handler, header, request)
        except Exception as error:
            self._fail(raw.token, header, request, error)
            return
        if hasattr(result, "add_done_callback"):

            def answer(done: Any) -> None:
                self._done(raw.token, header, request, done)

            result.add_done_callback(answer)
        else:
            self._answer(raw.token, header, request, result)

    def _call(self, handler: Callable[..., Any], header: RequestHeader, request: Any) -> Any:
        if header.api_key == _FIND_COORDINATOR and self._needs_offsets_topic(header, request):
            return self._task(self._find_coordinator(handler, header, request))
        ctx = self._ctx.groups if header.api_key in _GROUP_KEYS else self._ctx
        result = handler(ctx, header, request)
        return self._task(result) if hasattr(result, "send") else result

    def _needs_offsets_topic(self, header: RequestHeader, request: Any) -> bool:
        return (
            request.key_type == 0 or header.api_version == 0
        ) and self._ctx.groups.offsets_topic.partition_count() == 0

    async def _find_coordinator(
        self, handler: Callable[..., Any], header: RequestHeader, request: Any
    ) -> Any:
        """The first group of a broker: its topic is made before the answer, so that the client
        need not come back."""
        try:
            await self._ctx.topics.ensure_internal_topic("__consumer_offsets")
        except KafkaError as error:
            _log.error("cannot create __consumer_offsets: %s", error)
        return handler(self._ctx.groups, header, request)

    def _task(self, coroutine: Any) -> asyncio.Task[Any]:
        import asyncio

        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _handler(self, api_key: int) -> Callable[..., Any]:
        handler = self._handlers.get(api_key)
        if handler is None:
            from importlib import import_module

            module = import_module(f"penstock.handlers.{HANDLERS[api_key]}")
            handler = self._handlers[api_key] = module.handle
        return handler

    def _done(self, token: int, header: RequestHeader, request: Any, done: Any) -> None:
        import asyncio

        try:
            result = done.result()
        except asyncio.CancelledError:
            self._in_progress -= 1
            self._engine.close_connection(token)
        except Exception as error:
            self._fail(token, header, request, error)
        else:
            self._answer(token, header, request, result)

    def _answer(self, token: int, header: RequestHeader, request: Any, result: Any) -> None:
        try:
            if result is REDISPATCH:
                self._engine.redispatch(token)
            else:
                self._engine.respond(token, self._encode(header, result))
        except Exception as error:
            self._fail(token, header, request, error)
        else:
            self._in_progress -= 1

    def _encode(self, header: RequestHeader, response: Any) -> bytes:
        return self._codec.encode_response(
            header.api_key, header.api_version, header.correlation_id, response
        )

    def _fail(self, token: int, header: RequestHeader, request: Any, error: Exception) -> None:
        self._in_progress -= 1
        self._failures += 1
        code = _UNKNOWN_SERVER_ERROR
        if isinstance(error, KafkaError):
            code = error.code
        elif isinstance(error, EngineError):
            code = error.kafka_code
        if code == _UNKNOWN_SERVER_ERROR:
            _log.error(
                "handler %s failed",
                HANDLERS[header.api_key],
                exc_info=(type(error), error, error.__traceback__),
            )
        try:
            from penstock.handlers.failures import failure_response

            response = failure_response(header, request, code)
            if response is not None:
                self._engine.respond(token, self._encode(header, response))
                return
        except Exception:
            _log.exception("no failure response for key %d", header.api_key)
        self._engine.close_connection(token)

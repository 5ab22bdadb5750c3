"""A broker as a Python object, for tests, notebooks and programs that carry their own.

    with penstock.Broker() as broker:
        Producer({"bootstrap.servers": broker.bootstrap_servers})

Several may live in one process. The control loop runs in a thread of its own, never the caller's;
no signal handler is installed. After a fork the broker stays the parent's: in the child every call
raises ForkedError. A broker that was forgotten is stopped at exit.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import weakref
from typing import TYPE_CHECKING

from penstock.config.broker_config import BrokerConfig
from penstock.errors import ForkedError, PenstockError
from penstock.server import Server

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Self

# What an embedded broker sets unless it is told otherwise: a test should not wait three seconds
# for members that may still come.
_EMBEDDED = {"group.initial.rebalance.delay.ms": "0"}


class Broker:
    """`data_dir` None: a temporary directory of its own, removed at `stop`. `port` 0: a free one,
    kept over `restart`. `config`: Kafka's and Penstock's keys; the environment is not read."""

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        config: Mapping[str, object] | None = None,
    ) -> None:
        self._given_dir = None if data_dir is None else os.fspath(data_dir)
        self._host = host
        self._port = port
        self._settings = {name: _text(value) for name, value in (config or {}).items()}
        self._temporary: str | None = None
        self._server: Server | None = None
        self._pid = 0
        self._fork_hook = False

    # -- life ----------------------------------------------------------------------------------
    def start(self) -> Self:
        """Blocks until clients are served. PenstockError when it cannot be; nothing stays."""
        self._check_process()
        if self._server is not None:
            raise PenstockError("the broker is running")
        server = Server(BrokerConfig(self._configuration()))
        try:
            server.start()
        except BaseException:
            self._remove_temporary()
            raise
        self._server = server
        self._pid = os.getpid()
        self._port = server.bound_ports[0]
        atexit.register(self._stop_at_exit)
        if not self._fork_hook:
            # Python keeps hooks for ever: this one must not keep the broker.
            self._fork_hook = True
            alive: weakref.ref[Broker] = weakref.ref(self)
            os.register_at_fork(after_in_child=lambda: Broker._abandon(alive))
        return self

    def stop(self) -> None:
        """Graceful: what was acknowledged is flushed. Blocks. Does nothing when not running."""
        self._end(graceful=True)
        self._remove_temporary()

    def kill(self) -> None:
        """Stop abruptly, as near to kill -9 as a process can do to itself: nothing is flushed, no
        clean-shutdown marker is written. The data stays; `start` recovers it."""
        self._end(graceful=False)

    def restart(self) -> None:
        """Stop gracefully and start again with the same port and data."""
        self._end(graceful=True)
        self.start()

    def _end(self, *, graceful: bool) -> None:
        self._check_process()
        server, self._server = self._server, None
        if server is not None:
            atexit.unregister(self._stop_at_exit)
            server.stop(graceful)

    # -- what it is ----------------------------------------------------------------------------
    @property
    def bootstrap_servers(self) -> str:
        """host:port, as `bootstrap.servers` wants it."""
        return self._running().bootstrap

    @property
    def port(self) -> int:
        return self._running().bound_ports[0]

    @property
    def cluster_id(self) -> str:
        return self._running().cluster_id

    @property
    def data_dir(self) -> str:
        """Where the data is; None of it is kept after `stop` unless the directory was given."""
        found = self._given_dir or self._temporary
        if found is None:
            raise PenstockError("the broker has not been started")
        return found

    def statistics(self) -> dict[str, int]:
        """Counters and gauges by name."""
        return self._running().statistics()

    # -- with, async with ----------------------------------------------------------------------
    def __enter__(self) -> Self:
        return self if self._server is not None else self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._is_forked():  # a child that leaves the block leaves the parent's broker alone
            self.stop()

    async def astart(self) -> Self:
        """`start`, off the caller's event loop."""
        import asyncio

        return await asyncio.to_thread(self.start)

    async def astop(self) -> None:
        """`stop`, off the caller's event loop."""
        import asyncio

        await asyncio.to_thread(self.stop)

    async def __aenter__(self) -> Self:
        return self if self._server is not None else await self.astart()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._is_forked():
            await self.astop()

    # -- inside --------------------------------------------------------------------------------
    def _configuration(self) -> dict[str, str]:
        if self._given_dir is None and self._temporary is None:
            self._temporary = tempfile.mkdtemp(prefix="penstock-")
        host = f"[{self._host}]" if ":" in self._host else self._host
        found = dict(_EMBEDDED)
        found["log.dirs"] = self.data_dir
        found["listeners"] = f"PLAINTEXT://{host}:{self._port}"
        found.update(self._settings)
        return found

    def _running(self) -> Server:
        self._check_process()
        if self._server is None:
            raise PenstockError("the broker is not running")
        return self._server

    def _is_forked(self) -> bool:
        return self._pid != 0 and self._pid != os.getpid()

    def _check_process(self) -> None:
        if self._is_forked():
            raise ForkedError("this broker belongs to the parent process: start one of your own")

    def _remove_temporary(self) -> None:
        path, self._temporary = self._temporary, None
        if path is not None:
            shutil.rmtree(path, ignore_errors=True)

    def _stop_at_exit(self) -> None:
        if self._pid == os.getpid():
            self.stop()

    @staticmethod
    def _abandon(alive: weakref.ref[Broker]) -> None:
        broker = alive()
        if broker is not None and broker._server is not None:
            broker._server.abandon_after_fork()


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)

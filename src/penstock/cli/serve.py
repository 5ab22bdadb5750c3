"""`penstock serve`: one broker in this process, until SIGTERM or SIGINT.

Signals are blocked before any thread starts and taken by `sigwait` here, so that no other thread
is ever interrupted and an idle broker has nothing to wake for.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from penstock import __version__
from penstock.config.broker_config import load
from penstock.errors import PenstockError

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def _asyncio_without_tls() -> Generator[None, None, None]:
    """asyncio is imported during the start, and would load OpenSSL, which nothing in this process
    uses through asyncio: a fifth of its import time and some megabytes. Python allows for a
    missing ssl module; a later import of ssl works as ever."""
    if "asyncio" in sys.modules or "ssl" in sys.modules:
        yield
        return
    # None refuses an import (importlib's documentation); the type of sys.modules leaves it out.
    sys.modules["ssl"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["ssl"]


def serve(path: str | None, settings: Sequence[str]) -> int:
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    from penstock.server import Server, describe_failure

    try:
        config = load(path, settings, os.environ)
        server = Server(config)
        with _asyncio_without_tls():
            server.start()
    except (PenstockError, OSError) as error:
        print(f"penstock: {describe_failure(error)}", file=sys.stderr)
        return 1
    print(
        f"penstock {__version__} ready: bootstrap {server.bootstrap}, "
        f"data {','.join(config.log_dirs)}, durability {config.durability}",
        flush=True,
    )
    signal.sigwait(_STOP_SIGNALS)
    # A second signal ends the process at once.
    for number in _STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
    try:
        server.stop()
    except PenstockError as error:
        print(f"penstock: {error}", file=sys.stderr)
        return 1
    return 0

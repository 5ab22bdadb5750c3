"""A broker's control plane without sockets: MemoryEngine, an in-memory store, real handlers."""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import TYPE_CHECKING, Any

from memory_engine import MemoryEngine

from penstock.config.broker_config import BrokerConfig
from penstock.engine_port import BrokerEndpoint
from penstock.handlers import HANDLERS
from penstock.handlers.context import Context, RequestHeader
from penstock.metadata.producer_ids import ProducerIds
from penstock.metadata.service import TopicService
from penstock.metadata.sqlite_store import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Mapping


class Bench:
    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        self.engine = MemoryEngine()
        self.store = SqliteStore(":memory:")
        self.config = BrokerConfig({"node.id": "0", **(settings or {})})
        self.topics = TopicService(self.store, self.engine.publish, self.config, 0)
        endpoint = BrokerEndpoint(listener="PLAINTEXT", node_id=0, host="h", port=1, rack=None)
        self.ctx = Context(
            config=self.config,
            engine=self.engine,
            topics=self.topics,
            producer_ids=ProducerIds(self.store),
            cluster_id="cluster",
            endpoints=(endpoint,),
        )
        self._runner = asyncio.Runner()

    def close(self) -> None:
        self._runner.close()
        self.store.close()
        self.engine.close_eventfd()

    def run(self, awaitable: Any) -> Any:
        return self._runner.run(awaitable)

    def call(self, api_key: int, version: int, request: Any) -> Any:
        """The handler's answer."""
        handle = import_module(f"penstock.handlers.{HANDLERS[api_key]}").handle
        result = handle(self.ctx, RequestHeader(api_key, version), request)
        return self.run(result) if hasattr(result, "send") else result

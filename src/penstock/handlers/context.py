"""What handlers are given: the broker's services, and the request's header and connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.config.broker_config import BrokerConfig
    from penstock.engine_port import BrokerEndpoint, EnginePort
    from penstock.groups.context import GroupContext
    from penstock.metadata.producer_ids import ProducerIds
    from penstock.metadata.service import TopicService

# Answer of a handler: the engine shall answer the original frame from the image as it is now.
REDISPATCH: Final = object()

# Operations a client may do where nothing restricts it, as bits of Kafka's AclOperation codes.
TOPIC_OPERATIONS: Final = sum(1 << code for code in (3, 4, 5, 6, 7, 8, 10, 11))
CLUSTER_OPERATIONS: Final = sum(1 << code for code in (5, 7, 8, 9, 10, 11, 12))
GROUP_OPERATIONS: Final = sum(1 << code for code in (3, 6, 8, 10, 11))
OPERATIONS_NOT_ASKED: Final = -(1 << 31)


class RequestHeader:
    """Of one request. `client_host` is a numeric address, `principal` as "User:name"."""

    __slots__ = (
        "api_key",
        "api_version",
        "client_host",
        "client_id",
        "correlation_id",
        "listener",
        "principal",
    )

    def __init__(
        self,
        api_key: int,
        api_version: int,
        correlation_id: int = 0,
        client_id: str | None = None,
        client_host: str = "127.0.0.1",
        listener: str = "PLAINTEXT",
        principal: str = "User:ANONYMOUS",
    ) -> None:
        self.api_key = api_key
        self.api_version = api_version
        self.correlation_id = correlation_id
        self.client_id = client_id
        self.client_host = client_host
        self.listener = listener
        self.principal = principal


class Context:
    """Services of one broker. `groups` gives the group handlers' context, built at first use."""

    def __init__(
        self,
        *,
        config: BrokerConfig,
        engine: EnginePort,
        topics: TopicService,
        producer_ids: ProducerIds,
        cluster_id: str,
        endpoints: tuple[BrokerEndpoint, ...],
        groups: Callable[[], GroupContext] | None = None,
    ) -> None:
        self.config = config
        self.engine = engine
        self.topics = topics
        self.producer_ids = producer_ids
        self.cluster_id = cluster_id
        self.endpoints = endpoints
        self._groups = groups
        self.node_id = config.node_id

    @property
    def groups(self) -> GroupContext:
        assert self._groups is not None
        return self._groups()

    def endpoints_of(self, listener: str) -> list[BrokerEndpoint]:
        """Every broker, as a client of `listener` reaches it."""
        return [one for one in self.endpoints if one.listener == listener]

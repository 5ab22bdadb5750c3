"""pytest fixtures: a running broker, no Docker.

`penstock_broker` lives for the session; `fresh_penstock_broker` is new for each test. Both are
`penstock.Broker` objects. Settings: override the session fixture `penstock_config`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from penstock.broker import Broker


@pytest.fixture(scope="session")
def penstock_config() -> Mapping[str, object]:
    """Configuration of both brokers, by Kafka's keys; override it to change them."""
    return {}


@pytest.fixture(scope="session")
def penstock_broker(penstock_config: Mapping[str, object]) -> Iterator[Broker]:
    """One broker for the whole session."""
    from penstock.broker import Broker

    with Broker(config=penstock_config) as broker:
        yield broker


@pytest.fixture
def fresh_penstock_broker(penstock_config: Mapping[str, object]) -> Iterator[Broker]:
    """A broker of its own for one test."""
    from penstock.broker import Broker

    with Broker(config=penstock_config) as broker:
        yield broker

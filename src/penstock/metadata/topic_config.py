"""Topic configuration: validation and the plain integers that the engine gets.

Pure functions. Which names exist is in topic_keys, defaults come from the broker's configuration.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.config.topic_keys import TOPIC_KEYS
from penstock.config.values import Value, parse_checked
from penstock.engine_port import (
    CLEANUP_COMPACT,
    CLEANUP_DELETE,
    COMPRESSION_GZIP,
    COMPRESSION_LZ4,
    COMPRESSION_NONE,
    COMPRESSION_PRODUCER,
    COMPRESSION_SNAPPY,
    COMPRESSION_ZSTD,
    TIMESTAMP_CREATE_TIME,
    TIMESTAMP_LOG_APPEND_TIME,
    TopicLogConfig,
)
from penstock.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penstock.config.broker_config import BrokerConfig

_COMPRESSION = {
    "producer": COMPRESSION_PRODUCER,
    "uncompressed": COMPRESSION_NONE,
    "gzip": COMPRESSION_GZIP,
    "snappy": COMPRESSION_SNAPPY,
    "lz4": COMPRESSION_LZ4,
    "zstd": COMPRESSION_ZSTD,
}


def validate_topic_config(overrides: Mapping[str, str], broker: BrokerConfig) -> None:
    """ConfigError with Kafka's message for the first thing that is wrong."""
    for name in overrides:
        if name not in TOPIC_KEYS:
            raise ConfigError(f"Unknown topic config name: {name}")
    for name, raw in overrides.items():
        parse_checked(name, TOPIC_KEYS[name], raw)
    if "min.compaction.lag.ms" in overrides or "max.compaction.lag.ms" in overrides:
        low = effective_value("min.compaction.lag.ms", overrides, broker)
        high = effective_value("max.compaction.lag.ms", overrides, broker)
        assert isinstance(low, int)
        assert isinstance(high, int)
        if low > high:
            raise ConfigError(
                f"conflict topic config setting min.compaction.lag.ms ({low}) > "
                f"max.compaction.lag.ms ({high})"
            )
    if overrides.get("remote.storage.enable", "").strip().lower() == "true":
        raise ConfigError(
            "Tiered Storage functionality is disabled in the broker. "
            "Topic cannot be configured with remote log storage."
        )


def effective_value(name: str, overrides: Mapping[str, str], broker: BrokerConfig) -> Value:
    """Override, else the broker's default for topics, else Kafka's."""
    row = TOPIC_KEYS[name]
    if name in overrides:
        return parse_checked(name, row, overrides[name])
    value = broker.effective_default(row[4])
    return parse_checked(name, row, row[1]) if value is None else value


def log_config(overrides: Mapping[str, str], broker: BrokerConfig) -> TopicLogConfig:
    """All of a topic's configuration that the engine knows, defaults resolved."""

    def integer(name: str) -> int:
        value = effective_value(name, overrides, broker)
        assert isinstance(value, int)
        return int(value)

    policy = effective_value("cleanup.policy", overrides, broker)
    assert isinstance(policy, list)
    ratio = effective_value("min.cleanable.dirty.ratio", overrides, broker)
    assert isinstance(ratio, float)
    timestamp_type = effective_value("message.timestamp.type", overrides, broker)
    compression = effective_value("compression.type", overrides, broker)
    segment_bytes = integer("segment.bytes")
    if "internal.segment.bytes" in overrides:
        segment_bytes = integer("internal.segment.bytes")
    return TopicLogConfig(
        cleanup_policy=(CLEANUP_DELETE if "delete" in policy else 0)
        | (CLEANUP_COMPACT if "compact" in policy else 0),
        compression_gzip_level=integer("compression.gzip.level"),
        compression_lz4_level=integer("compression.lz4.level"),
        compression_type=_COMPRESSION[str(compression)],
        compression_zstd_level=integer("compression.zstd.level"),
        delete_retention_ms=integer("delete.retention.ms"),
        file_delete_delay_ms=integer("file.delete.delay.ms"),
        flush_messages=integer("flush.messages"),
        flush_ms=integer("flush.ms"),
        index_interval_bytes=integer("index.interval.bytes"),
        max_compaction_lag_ms=integer("max.compaction.lag.ms"),
        max_message_bytes=integer("max.message.bytes"),
        message_timestamp_after_max_ms=integer("message.timestamp.after.max.ms"),
        message_timestamp_before_max_ms=integer("message.timestamp.before.max.ms"),
        message_timestamp_type=(
            TIMESTAMP_LOG_APPEND_TIME
            if timestamp_type == "LogAppendTime"
            else TIMESTAMP_CREATE_TIME
        ),
        min_cleanable_dirty_ratio_ppm=round(ratio * 1_000_000),
        min_compaction_lag_ms=integer("min.compaction.lag.ms"),
        min_insync_replicas=integer("min.insync.replicas"),
        preallocate=integer("preallocate"),
        retention_bytes=integer("retention.bytes"),
        retention_ms=integer("retention.ms"),
        segment_bytes=segment_bytes,
        segment_index_bytes=integer("segment.index.bytes"),
        segment_jitter_ms=integer("segment.jitter.ms"),
        segment_ms=integer("segment.ms"),
        unclean_leader_election=integer("unclean.leader.election.enable"),
    )

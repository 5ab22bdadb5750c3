"""Every group configuration of Apache Kafka 4.4.0.

One row is `name: (type, default, allowed, flags, synonym)`.

Columns as in topic_keys; `synonym` is the broker key that gives the default, None where Kafka has
none. They are stored and described; the group types that read them come with a later release.
"""

from __future__ import annotations

GroupRow = tuple[str, "str | None", str, str, "str | None"]

GROUP_KEYS: dict[str, GroupRow] = {
    "consumer.assignment.interval.ms": (
        "int",
        "1000",
        "0..",
        "",
        "group.consumer.assignment.interval.ms",
    ),
    "consumer.assignor.offload.enable": (
        "boolean",
        "true",
        "",
        "",
        "group.consumer.assignor.offload.enable",
    ),
    "consumer.heartbeat.interval.ms": (
        "int",
        "5000",
        "1..",
        "",
        "group.consumer.heartbeat.interval.ms",
    ),
    "consumer.session.timeout.ms": ("int", "45000", "1..", "", "group.consumer.session.timeout.ms"),
    "errors.deadletterqueue.copy.record.enable": ("boolean", "false", "", "", None),
    "errors.deadletterqueue.topic.name": ("string", "", "", "", None),
    "share.assignment.interval.ms": (
        "int",
        "1000",
        "0..",
        "",
        "group.share.assignment.interval.ms",
    ),
    "share.assignor.offload.enable": (
        "boolean",
        "true",
        "",
        "",
        "group.share.assignor.offload.enable",
    ),
    "share.auto.offset.reset": ("string", "latest", "", "", None),
    "share.delivery.count.limit": ("int", "5", "2..", "", "group.share.delivery.count.limit"),
    "share.heartbeat.interval.ms": ("int", "5000", "1..", "", "group.share.heartbeat.interval.ms"),
    "share.isolation.level": (
        "string",
        "read_uncommitted",
        "in read_committed,read_uncommitted",
        "",
        None,
    ),
    "share.partition.max.record.locks": (
        "int",
        "2000",
        "100..",
        "",
        "group.share.partition.max.record.locks",
    ),
    "share.record.lock.duration.ms": (
        "int",
        "30000",
        "1000..",
        "",
        "group.share.record.lock.duration.ms",
    ),
    "share.renew.acknowledge.enable": ("boolean", "true", "", "", None),
    "share.session.timeout.ms": ("int", "45000", "1..", "", "group.share.session.timeout.ms"),
    "streams.acceptable.recovery.lag": (
        "long",
        "10000",
        "0..",
        "",
        "group.streams.acceptable.recovery.lag",
    ),
    "streams.assignment.interval.ms": (
        "int",
        "1000",
        "0..",
        "",
        "group.streams.assignment.interval.ms",
    ),
    "streams.assignor.name": ("string", "sticky", "", "", "group.streams.assignors"),
    "streams.assignor.offload.enable": (
        "boolean",
        "true",
        "",
        "",
        "group.streams.assignor.offload.enable",
    ),
    "streams.heartbeat.interval.ms": (
        "int",
        "5000",
        "1..",
        "",
        "group.streams.heartbeat.interval.ms",
    ),
    "streams.initial.rebalance.delay.ms": (
        "int",
        "3000",
        "0..",
        "",
        "group.streams.initial.rebalance.delay.ms",
    ),
    "streams.num.standby.replicas": ("int", "0", "0..", "", "group.streams.num.standby.replicas"),
    "streams.num.warmup.replicas": ("int", "2", "0..", "", "group.streams.num.warmup.replicas"),
    "streams.rack.aware.assignment.tags": (
        "list",
        "",
        "",
        "",
        "group.streams.rack.aware.assignment.tags",
    ),
    "streams.session.timeout.ms": ("int", "45000", "1..", "", "group.streams.session.timeout.ms"),
    "streams.task.offset.interval.ms": (
        "int",
        "60000",
        "1..",
        "",
        "group.streams.task.offset.interval.ms",
    ),
}

CLIENT_METRICS_KEYS: dict[str, GroupRow] = {
    "interval.ms": ("int", "300000", "100..3600000", "", None),
    "match": ("list", "", "", "", None),
    "metrics": ("list", "", "", "", None),
}

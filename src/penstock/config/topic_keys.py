"""Every topic configuration of Apache Kafka 4.4.0: one row is
`name: (type, default, allowed, flags, synonyms)`, columns as in broker_keys.

`synonyms` are the broker keys that give a topic its default, nearest first, with the factor that
turns their value into the topic's unit. Flag "e": the configuration has an effect in this release.
Documentation is in topic_docs, so that a start does not read it.
"""

from __future__ import annotations

TopicRow = tuple[str, "str | None", str, str, tuple[tuple[str, int], ...]]

TOPIC_KEYS: dict[str, TopicRow] = {
    "cleanup.policy": ("list", "delete", "list compact,delete", "e", (("log.cleanup.policy", 1),)),
    "compression.gzip.level": ("int", "-1", "gzip", "e", (("compression.gzip.level", 1),)),
    "compression.lz4.level": ("int", "9", "1..17", "e", (("compression.lz4.level", 1),)),
    "compression.type": (
        "string",
        "producer",
        "in uncompressed,zstd,lz4,snappy,gzip,producer",
        "e",
        (("compression.type", 1),),
    ),
    "compression.zstd.level": ("int", "3", "-131072..22", "e", (("compression.zstd.level", 1),)),
    "delete.retention.ms": (
        "long",
        "86400000",
        "0..",
        "",
        (("log.cleaner.delete.retention.ms", 1),),
    ),
    "errors.deadletterqueue.group.enable": ("boolean", "false", "", "", ()),
    "file.delete.delay.ms": ("long", "60000", "0..", "e", (("log.segment.delete.delay.ms", 1),)),
    "flush.messages": (
        "long",
        "9223372036854775807",
        "1..",
        "",
        (("log.flush.interval.messages", 1),),
    ),
    "flush.ms": (
        "long",
        "9223372036854775807",
        "0..",
        "",
        (("log.flush.interval.ms", 1), ("log.flush.scheduler.interval.ms", 1)),
    ),
    "follower.replication.throttled.replicas": ("list", "", "replicas", "", ()),
    "index.interval.bytes": ("int", "4096", "0..", "e", (("log.index.interval.bytes", 1),)),
    "internal.segment.bytes": ("int", None, "", "ei", ()),
    "leader.replication.throttled.replicas": ("list", "", "replicas", "", ()),
    "local.retention.bytes": ("long", "-2", "-2..", "", (("log.local.retention.bytes", 1),)),
    "local.retention.ms": ("long", "-2", "-2..", "", (("log.local.retention.ms", 1),)),
    "max.compaction.lag.ms": (
        "long",
        "9223372036854775807",
        "1..",
        "",
        (("log.cleaner.max.compaction.lag.ms", 1),),
    ),
    "max.decompressed.message.bytes": (
        "int",
        "2147483639",
        "1..2147483639",
        "",
        (("max.decompressed.message.bytes", 1),),
    ),
    "max.message.bytes": ("int", "1048588", "0..", "e", (("message.max.bytes", 1),)),
    "message.timestamp.after.max.ms": (
        "long",
        "3600000",
        "0..",
        "e",
        (("log.message.timestamp.after.max.ms", 1),),
    ),
    "message.timestamp.before.max.ms": (
        "long",
        "9223372036854775807",
        "0..",
        "e",
        (("log.message.timestamp.before.max.ms", 1),),
    ),
    "message.timestamp.type": (
        "string",
        "CreateTime",
        "in CreateTime,LogAppendTime",
        "e",
        (("log.message.timestamp.type", 1),),
    ),
    "min.cleanable.dirty.ratio": (
        "double",
        "0.5",
        "0..1",
        "",
        (("log.cleaner.min.cleanable.ratio", 1),),
    ),
    "min.compaction.lag.ms": ("long", "0", "0..", "", (("log.cleaner.min.compaction.lag.ms", 1),)),
    "min.insync.replicas": ("int", "1", "1..", "e", (("min.insync.replicas", 1),)),
    "preallocate": ("boolean", "false", "", "e", (("log.preallocate", 1),)),
    "remote.copy.lag.bytes": ("long", "-1", "-1..", "", (("log.remote.copy.lag.bytes", 1),)),
    "remote.copy.lag.ms": ("long", "0", "-1..", "", (("log.remote.copy.lag.ms", 1),)),
    "remote.log.copy.disable": ("boolean", "false", "", "", ()),
    "remote.log.delete.on.disable": ("boolean", "false", "", "", ()),
    "remote.storage.enable": ("boolean", "false", "", "", ()),
    "retention.bytes": ("long", "-1", "", "e", (("log.retention.bytes", 1),)),
    "retention.ms": (
        "long",
        "604800000",
        "-1..",
        "e",
        (
            ("log.retention.ms", 1),
            ("log.retention.minutes", 60000),
            ("log.retention.hours", 3600000),
        ),
    ),
    "segment.bytes": ("int", "1073741824", "1048576..", "e", (("log.segment.bytes", 1),)),
    "segment.index.bytes": ("int", "10485760", "4..", "e", (("log.index.size.max.bytes", 1),)),
    "segment.jitter.ms": (
        "long",
        "0",
        "0..",
        "e",
        (("log.roll.jitter.ms", 1), ("log.roll.jitter.hours", 3600000)),
    ),
    "segment.ms": (
        "long",
        "604800000",
        "1..",
        "e",
        (("log.roll.ms", 1), ("log.roll.hours", 3600000)),
    ),
    "unclean.leader.election.enable": (
        "boolean",
        "false",
        "",
        "",
        (("unclean.leader.election.enable", 1),),
    ),
}

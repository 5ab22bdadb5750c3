"""What each topic configuration means, in our words, and the page that lists those without effect.

Read only when documentation is asked for. `python -m penstock.config.topic_docs` prints
docs/topic-configs.md; a test compares the two.
"""

from __future__ import annotations

from penstock.config.topic_keys import TOPIC_KEYS

TOPIC_DOCS: dict[str, str] = {
    "cleanup.policy": "What happens to old records: delete drops segments by age and size, compact "
    "keeps the newest record of each key; both may be set, and an empty list keeps everything.",
    "compression.gzip.level": "Level of gzip when compression.type is gzip; -1 is the default.",
    "compression.lz4.level": "Level of lz4 when compression.type is lz4.",
    "compression.type": "How batches are stored: producer keeps what the producer chose, "
    "uncompressed stores plain, any other value is the codec every batch is stored with.",
    "compression.zstd.level": "Level of zstd when compression.type is zstd.",
    "delete.retention.ms": "Milliseconds that tombstones are kept in a compacted topic.",
    "errors.deadletterqueue.group.enable": "Whether share groups may use the topic as their "
    "dead-letter queue.",
    "file.delete.delay.ms": "Milliseconds between taking a segment out of use and deleting its "
    "files.",
    "flush.messages": "Number of records after which a flush to disk is forced.",
    "flush.ms": "Milliseconds after which a flush to disk is forced.",
    "follower.replication.throttled.replicas": "Replicas whose fetching is throttled, as "
    "partition:broker pairs, or * for all.",
    "index.interval.bytes": "Bytes of log between two entries of the offset index.",
    "internal.segment.bytes": "Segment size without the lower bound, for tests.",
    "leader.replication.throttled.replicas": "Replicas whose serving is throttled, as "
    "partition:broker pairs, or * for all.",
    "local.retention.bytes": "Bytes of a tiered topic kept on local disk; -2 is retention.bytes.",
    "local.retention.ms": "Milliseconds a tiered topic is kept on local disk; -2 is retention.ms.",
    "max.compaction.lag.ms": "Milliseconds after which a record must have become eligible for "
    "compaction.",
    "max.decompressed.message.bytes": "Largest size a batch may have once decompressed.",
    "max.message.bytes": "Largest record batch accepted, in bytes, as compressed.",
    "message.timestamp.after.max.ms": "How far a record's timestamp may lie ahead of the broker's "
    "clock, in milliseconds.",
    "message.timestamp.before.max.ms": "How far a record's timestamp may lie behind the broker's "
    "clock, in milliseconds.",
    "message.timestamp.type": "CreateTime keeps the producer's timestamp, LogAppendTime stamps "
    "records with the broker's clock.",
    "min.cleanable.dirty.ratio": "Share of a compacted log that must be new before it is cleaned.",
    "min.compaction.lag.ms": "Milliseconds a record stays uncompacted at least.",
    "min.insync.replicas": "In-sync replicas needed for a write with acks=all to be accepted.",
    "preallocate": "Whether a new segment's file is given its full space at once.",
    "remote.copy.lag.bytes": "Bytes a rolled segment may wait before it is copied to the remote "
    "tier.",
    "remote.copy.lag.ms": "Milliseconds a rolled segment may wait before it is copied to the "
    "remote tier.",
    "remote.log.copy.disable": "Whether copying to the remote tier is off; what is there stays.",
    "remote.log.delete.on.disable": "Whether the remote copy is deleted when tiering is switched "
    "off.",
    "remote.storage.enable": "Whether the topic is tiered.",
    "retention.bytes": "Bytes a partition may hold before old segments are deleted; -1 is no "
    "bound.",
    "retention.ms": "Milliseconds records are kept before old segments are deleted; -1 is no "
    "bound.",
    "segment.bytes": "Largest size of a segment file, in bytes.",
    "segment.index.bytes": "Size an index may reach before its segment is rolled, in bytes.",
    "segment.jitter.ms": "Random part taken off segment.ms, so that partitions do not roll at "
    "once.",
    "segment.ms": "Milliseconds after which a segment is rolled even when it is not full.",
    "unclean.leader.election.enable": "Whether a replica that is not in sync may become leader, "
    "losing records.",
}


def page() -> str:
    """docs/topic-configs.md."""
    lines = [
        "# Topic configurations",
        "",
        "Every topic configuration of Apache Kafka 4.4 can be set, is validated and is described.",
        'This table is generated (`python -m penstock.config.topic_docs`); those with "no" are',
        "kept and shown, but change nothing in this release. Of `cleanup.policy`, `compact` is",
        "accepted and validated, and cleaning comes with a later release.",
        "",
        "| name | type | default | allowed | broker keys that set the default | effect |",
        "|---|---|---|---|---|---|",
    ]
    for name, (type_, default, allowed, flags, synonyms) in TOPIC_KEYS.items():
        if "i" in flags:
            continue
        keys = ", ".join(f"`{key}`" for key, _ in synonyms)
        effect = "yes" if "e" in flags else "no"
        shown = f"`{default}`" if default else "(empty)"
        lines.append(f"| `{name}` | {type_} | {shown} | {_in_words(allowed)} | {keys} | {effect} |")
    return "\n".join(lines) + "\n"


def _in_words(allowed: str) -> str:
    kind, _, rest = allowed.partition(" ")
    if kind in ("in", "list"):
        return ", ".join(rest.split(","))
    if kind == "gzip":
        return "1 to 9, or -1"
    if kind == "replicas":
        return "partition:broker pairs, or *"
    low, _, high = allowed.partition("..")
    if high:
        return f"{low} to {high}"
    return f"at least {low}" if low else ""


if __name__ == "__main__":
    print(page(), end="")

"""Topics found in log directories that the store does not know: a directory that Kafka wrote.

Kafka keeps its topics in its own metadata log; what can be had without it is in each partition's
directory: its name, and the topic id in partition.metadata. Used only while the store is new, so
that a topic deleted later never comes back. Configurations are not recoverable this way.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from penstock.metadata.model import Partition, Topic
from penstock.metadata.names import CLUSTER_METADATA_TOPIC, id_from_text, name_problem

if TYPE_CHECKING:
    from collections.abc import Sequence


def find_topics(dirs: Sequence[str], node_id: int) -> list[Topic]:
    """Every topic with at least one partition directory and a topic id. Partitions whose
    directory is missing are taken as empty."""
    found: dict[tuple[str, bytes], dict[int, tuple[int, int]]] = {}
    for at, path in enumerate(dirs):
        with os.scandir(path) as entries:
            names = [entry.name for entry in entries if entry.is_dir() and "-" in entry.name]
        for entry in names:
            name, _, number = entry.rpartition("-")
            if not number.isdigit() or name_problem(name) or name == CLUSTER_METADATA_TOPIC:
                continue
            topic_id = _topic_id(os.path.join(path, entry, "partition.metadata"))
            if topic_id is not None:
                epoch = _last_epoch(os.path.join(path, entry, "leader-epoch-checkpoint"))
                found.setdefault((name, topic_id), {})[int(number)] = (at, epoch)
    topics: list[Topic] = []
    for (name, topic_id), dirs_of in sorted(found.items()):
        partitions = tuple(
            Partition(node_id, epoch, 0, (node_id,), (node_id,), at)
            for at, epoch in (dirs_of.get(number, (0, 0)) for number in range(max(dirs_of) + 1))
        )
        topics.append(Topic(name=name, topic_id=topic_id, partitions=partitions, configs={}))
    return topics


def _topic_id(path: str) -> bytes | None:
    try:
        with open(path, encoding="utf-8") as stream:
            for line in stream:
                key, _, value = line.partition(":")
                if key.strip() == "topic_id":
                    return id_from_text(value.strip())
    except (OSError, ValueError):
        return None
    return None


def _last_epoch(path: str) -> int:
    """The newest leader epoch of a leader-epoch-checkpoint file (lines "epoch offset")."""
    try:
        with open(path, encoding="utf-8") as stream:
            pairs = [line.split() for line in stream.readlines()[2:]]
        return max((int(pair[0]) for pair in pairs if len(pair) == 2), default=0)
    except (OSError, ValueError):
        return 0

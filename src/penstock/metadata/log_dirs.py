"""Identity of the log directories: Kafka's meta.properties (version 1).

Written aside, flushed, renamed, directory flushed. A directory that belongs to another node or
another cluster is refused: serving it would mix two clusters' data.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from penstock.config.properties import decode, parse_properties
from penstock.errors import StartError
from penstock.metadata.names import id_text, new_topic_id

if TYPE_CHECKING:
    from collections.abc import Sequence

_NAME = "meta.properties"


class Identity(NamedTuple):
    """`missing`: the directories that have no meta.properties yet."""

    cluster_id: str
    missing: tuple[str, ...]


def identify(dirs: Sequence[str], node_id: int, wanted_cluster_id: str | None) -> Identity:
    """Create the directories, read who they belong to. StartError when that is someone else."""
    cluster_id = wanted_cluster_id
    origin = "penstock.cluster.id"
    missing: list[str] = []
    for path in dirs:
        try:
            os.makedirs(path, exist_ok=True)
            with open(os.path.join(path, _NAME), "rb") as stream:
                found = parse_properties(decode(stream.read()))
        except FileNotFoundError:
            missing.append(path)
            continue
        except OSError as error:
            raise StartError(f"cannot use log directory {path}: {error.strerror}") from error
        stored_node = found.get("node.id", found.get("broker.id"))
        if stored_node is not None and stored_node != str(node_id):
            raise StartError(
                f"log directory {path} belongs to node.id {stored_node}, this is node.id {node_id}"
            )
        stored = found.get("cluster.id")
        if stored and cluster_id and stored != cluster_id:
            raise StartError(
                f"log directory {path} belongs to cluster {stored}, but {origin} is {cluster_id}"
            )
        if stored and not cluster_id:
            cluster_id, origin = stored, f"the cluster of {path}"
    return Identity(cluster_id or id_text(new_topic_id()), tuple(missing))


def write_identity(identity: Identity, node_id: int) -> None:
    """Give every directory without one its meta.properties."""
    for path in identity.missing:
        text = (
            f"cluster.id={identity.cluster_id}\n"
            f"directory.id={id_text(new_topic_id())}\n"
            f"node.id={node_id}\n"
            "version=1\n"
        )
        replace_file(os.path.join(path, _NAME), text.encode())


def replace_file(path: str, data: bytes) -> None:
    """Write aside, flush, rename, flush the directory."""
    aside = path + ".tmp"
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.write(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(aside, path)
    parent = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)

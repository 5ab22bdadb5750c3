"""`penstock topics create | list | describe | delete`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from penstock.cli.client import AdminClient
from penstock.errors import PenstockError
from penstock.metadata.names import id_text
from penstock.protocol.errors_table import ERRORS, TOPIC_ALREADY_EXISTS, UNKNOWN_TOPIC_OR_PARTITION

if TYPE_CHECKING:
    import argparse

_METADATA, _CREATE, _DELETE, _DESCRIBE_CONFIGS = 3, 19, 20, 32
_TOPIC_RESOURCE = 2
_DYNAMIC_TOPIC = 1


def run(arguments: argparse.Namespace) -> int:
    with AdminClient(arguments.bootstrap) as client:
        action = _ACTIONS[arguments.action]
        return int(action(client, arguments))


def _create(client: AdminClient, arguments: argparse.Namespace) -> int:
    from penstock.protocol.messages.create_topics import (
        CreatableTopic,
        CreatableTopicConfig,
        CreateTopicsRequest,
    )

    configs = [_pair(item) for item in arguments.config]
    topics = [
        CreatableTopic(
            name=name,
            num_partitions=arguments.partitions,
            replication_factor=arguments.replication_factor,
            configs=[CreatableTopicConfig(name=key, value=value) for key, value in configs],
        )
        for name in arguments.names
    ]
    answer = client.call(_CREATE, CreateTopicsRequest(topics=topics))
    ignored = (TOPIC_ALREADY_EXISTS,) if arguments.if_not_exists else ()
    rows = [
        {
            "topic": one.name,
            "topic_id": id_text(one.topic_id),
            "partitions": one.num_partitions,
            "error": _error(one.error_code, one.error_message),
        }
        for one in answer.topics
    ]
    failed = any(one.error_code and one.error_code not in ignored for one in answer.topics)
    return _report(arguments, rows, failed, "created")


def _delete(client: AdminClient, arguments: argparse.Namespace) -> int:
    from penstock.protocol.messages.delete_topics import DeleteTopicsRequest, DeleteTopicState

    request = DeleteTopicsRequest(
        topics=[DeleteTopicState(name=name) for name in arguments.names],
        topic_names=list(arguments.names),
        timeout_ms=30_000,
    )
    answer = client.call(_DELETE, request)
    ignored = (UNKNOWN_TOPIC_OR_PARTITION,) if arguments.if_exists else ()
    rows = [
        {"topic": one.name, "error": _error(one.error_code, one.error_message)}
        for one in answer.responses
    ]
    failed = any(one.error_code and one.error_code not in ignored for one in answer.responses)
    return _report(arguments, rows, failed, "deleted")


def _report(
    arguments: argparse.Namespace, rows: list[dict[str, Any]], failed: bool, done: str
) -> int:
    if arguments.json:
        _print_json(rows)
    else:
        for row in rows:
            if row["error"] is None:
                print(f"{done} {row['topic']}")
            else:
                print(f"penstock: {row['topic']}: {row['error']}", file=sys.stderr)
    return 1 if failed else 0


def _list(client: AdminClient, arguments: argparse.Namespace) -> int:
    topics = sorted(_metadata(client, None).topics, key=lambda one: one.name)
    if arguments.json:
        _print_json([_row(one) for one in topics])
    else:
        for one in topics:
            print(one.name)
    return 0


def _describe(client: AdminClient, arguments: argparse.Namespace) -> int:
    topics = sorted(
        _metadata(client, arguments.names or None).topics, key=lambda one: one.name or ""
    )
    rows: list[dict[str, Any]] = []
    failed = False
    for one in topics:
        if one.error_code:
            failed = True
            print(f"penstock: {one.name}: {_error(one.error_code, None)}", file=sys.stderr)
            continue
        row = _row(one)
        row["configs"] = _configs(client, one.name)
        row["partition_list"] = [
            {
                "partition": part.partition_index,
                "leader": part.leader_id,
                "leader_epoch": part.leader_epoch,
                "replicas": part.replica_nodes,
                "isr": part.isr_nodes,
            }
            for part in sorted(one.partitions, key=lambda part: part.partition_index)
        ]
        rows.append(row)
    if arguments.json:
        _print_json(rows)
    else:
        for row in rows:
            _print_topic(row)
    return 1 if failed else 0


def _metadata(client: AdminClient, names: list[str] | None) -> Any:
    from penstock.protocol.messages.metadata import MetadataRequest, MetadataRequestTopic

    topics = None if names is None else [MetadataRequestTopic(name=name) for name in names]
    return client.call(_METADATA, MetadataRequest(topics=topics, allow_auto_topic_creation=False))


def _configs(client: AdminClient, name: str) -> dict[str, str]:
    from penstock.protocol.messages.describe_configs import (
        DescribeConfigsRequest,
        DescribeConfigsResource,
    )

    resource = DescribeConfigsResource(
        resource_type=_TOPIC_RESOURCE, resource_name=name, configuration_keys=None
    )
    answer = client.call(_DESCRIBE_CONFIGS, DescribeConfigsRequest(resources=[resource]))
    return {
        one.name: one.value
        for result in answer.results
        for one in result.configs
        if one.config_source == _DYNAMIC_TOPIC
    }


def _row(topic: Any) -> dict[str, Any]:
    return {
        "topic": topic.name,
        "topic_id": id_text(topic.topic_id),
        "internal": topic.is_internal,
        "partitions": len(topic.partitions),
        "replication_factor": len(topic.partitions[0].replica_nodes) if topic.partitions else 0,
    }


def _print_topic(row: dict[str, Any]) -> None:
    configs = ",".join(f"{name}={value}" for name, value in row["configs"].items())
    print(
        f"Topic: {row['topic']}\tTopicId: {row['topic_id']}\tPartitionCount: {row['partitions']}\t"
        f"ReplicationFactor: {row['replication_factor']}\tConfigs: {configs}"
    )
    for part in row["partition_list"]:
        replicas = ",".join(map(str, part["replicas"]))
        isr = ",".join(map(str, part["isr"]))
        print(
            f"\tTopic: {row['topic']}\tPartition: {part['partition']}\tLeader: {part['leader']}\t"
            f"Replicas: {replicas}\tIsr: {isr}"
        )


def _print_json(value: object) -> None:
    import json

    print(json.dumps(value, indent=2))


def _pair(item: str) -> tuple[str, str]:
    name, equals, value = item.partition("=")
    if not equals or not name:
        raise PenstockError(f"--config {item}: key=value is needed")
    return name, value


def _error(code: int, message: str | None) -> str | None:
    if code == 0:
        return None
    known = ERRORS.get(code)
    name = known.name if known else str(code)
    return f"{message or (known.message if known else 'unknown error')} ({name})"


_ACTIONS = {"create": _create, "list": _list, "describe": _describe, "delete": _delete}

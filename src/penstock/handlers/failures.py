"""What a request is answered with when its handler failed: the given code in that response's shape.

Read only after a failure. A response without any place for a code (none is left out today among
those that Python serves, except Metadata) is not made up: the connection is closed instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.handlers import HANDLERS

if TYPE_CHECKING:
    from types import ModuleType

    from penstock.handlers.context import RequestHeader


def failure_response(header: RequestHeader, request: Any, code: int) -> Any | None:
    """The response, or None where there is no shape for it."""
    from importlib import import_module

    name = HANDLERS[header.api_key]
    messages = import_module(f"penstock.protocol.messages.{name}")
    special = _SPECIAL.get(name)
    if special is not None:
        return special(messages, header, request, code)
    response_type = getattr(messages, "".join(p.capitalize() for p in name.split("_")) + "Response")
    if "error_code" not in response_type.__slots__:
        return None
    return response_type(error_code=code)


def _create_topics(m: ModuleType, header: RequestHeader, request: Any, code: int) -> Any:
    return m.CreateTopicsResponse(
        topics=[
            m.CreatableTopicResult(name=name, error_code=code, error_message=None)
            for name in dict.fromkeys(one.name for one in request.topics)
        ]
    )


def _delete_topics(m: ModuleType, header: RequestHeader, request: Any, code: int) -> Any:
    results = [m.DeletableTopicResult(name=name, error_code=code) for name in request.topic_names]
    results += [
        m.DeletableTopicResult(name=one.name, topic_id=one.topic_id, error_code=code)
        for one in request.topics
    ]
    return m.DeleteTopicsResponse(responses=results)


def _create_partitions(m: ModuleType, header: RequestHeader, request: Any, code: int) -> Any:
    return m.CreatePartitionsResponse(
        results=[
            m.CreatePartitionsTopicResult(name=one.name, error_code=code, error_message=None)
            for one in request.topics
        ]
    )


def _delete_records(m: ModuleType, header: RequestHeader, request: Any, code: int) -> Any:
    return m.DeleteRecordsResponse(
        topics=[
            m.DeleteRecordsTopicResult(
                name=topic.name,
                partitions=[
                    m.DeleteRecordsPartitionResult(
                        partition_index=one.partition_index, low_watermark=-1, error_code=code
                    )
                    for one in topic.partitions
                ],
            )
            for topic in request.topics
        ]
    )


def _describe_configs(m: ModuleType, header: RequestHeader, request: Any, code: int) -> Any:
    return m.DescribeConfigsResponse(
        results=[
            m.DescribeConfigsResult(
                error_code=code,
                error_message=None,
                resource_type=one.resource_type,
                resource_name=one.resource_name,
            )
            for one in request.resources
        ]
    )


def _alter_configs(m: ModuleType, header: RequestHeader, request: Any, code: int) -> Any:
    whole = getattr(m, "AlterConfigsResponse", None) or m.IncrementalAlterConfigsResponse
    return whole(
        responses=[
            m.AlterConfigsResourceResponse(
                error_code=code,
                error_message=None,
                resource_type=one.resource_type,
                resource_name=one.resource_name,
            )
            for one in request.resources
        ]
    )


def _find_coordinator(m: ModuleType, header: RequestHeader, request: Any, code: int) -> Any:
    if header.api_version < 4:
        return m.FindCoordinatorResponse(error_code=code, node_id=-1, host="", port=-1)
    return m.FindCoordinatorResponse(
        coordinators=[
            m.Coordinator(key=key, node_id=-1, host="", port=-1, error_code=code)
            for key in request.coordinator_keys
        ]
    )


def _offset_commit(m: ModuleType, header: RequestHeader, request: Any, code: int) -> Any:
    return m.OffsetCommitResponse(
        topics=[
            m.OffsetCommitResponseTopic(
                name=topic.name,
                topic_id=topic.topic_id,
                partitions=[
                    m.OffsetCommitResponsePartition(
                        partition_index=one.partition_index, error_code=code
                    )
                    for one in topic.partitions
                ],
            )
            for topic in request.topics
        ]
    )


def _offset_fetch(m: ModuleType, header: RequestHeader, request: Any, code: int) -> Any:
    if header.api_version >= 8:
        return m.OffsetFetchResponse(
            groups=[
                m.OffsetFetchResponseGroup(group_id=one.group_id, error_code=code)
                for one in request.groups
            ]
        )
    return m.OffsetFetchResponse(error_code=code) if header.api_version >= 2 else None


def _describe_groups(m: ModuleType, header: RequestHeader, request: Any, code: int) -> Any:
    return m.DescribeGroupsResponse(
        groups=[m.DescribedGroup(group_id=name, error_code=code) for name in request.groups]
    )


def _delete_groups(m: ModuleType, header: RequestHeader, request: Any, code: int) -> Any:
    return m.DeleteGroupsResponse(
        results=[
            m.DeletableGroupResult(group_id=name, error_code=code) for name in request.groups_names
        ]
    )


def _describe_topic_partitions(
    m: ModuleType, header: RequestHeader, request: Any, code: int
) -> Any:
    return m.DescribeTopicPartitionsResponse(
        topics=[
            m.DescribeTopicPartitionsResponseTopic(name=one.name, error_code=code)
            for one in request.topics
        ]
    )


_SPECIAL: dict[str, Any] = {
    "create_topics": _create_topics,
    "delete_topics": _delete_topics,
    "create_partitions": _create_partitions,
    "delete_records": _delete_records,
    "describe_configs": _describe_configs,
    "alter_configs": _alter_configs,
    "incremental_alter_configs": _alter_configs,
    "describe_topic_partitions": _describe_topic_partitions,
    "find_coordinator": _find_coordinator,
    "offset_commit": _offset_commit,
    "offset_fetch": _offset_fetch,
    "describe_groups": _describe_groups,
    "delete_groups": _delete_groups,
}

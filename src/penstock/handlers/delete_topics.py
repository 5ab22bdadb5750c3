"""DeleteTopics 1-6, by name and (from 6) by id. Left out: throttling by mutation quota."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.errors import KafkaError
from penstock.metadata.names import ZERO_ID
from penstock.protocol import errors_table as codes
from penstock.protocol.messages.delete_topics import (
    DeletableTopicResult,
    DeleteTopicsRequest,
    DeleteTopicsResponse,
)

if TYPE_CHECKING:
    from penstock.handlers.context import Context, RequestHeader

_Entry = tuple["str | None", "bytes | None"]


async def handle(
    ctx: Context, header: RequestHeader, request: DeleteTopicsRequest
) -> DeleteTopicsResponse:
    wanted = _wanted(header.api_version, request)
    if not ctx.config.flag("delete.topic.enable"):
        old = header.api_version < 3
        code = codes.INVALID_REQUEST if old else codes.TOPIC_DELETION_DISABLED
        message = codes.ERRORS[codes.TOPIC_DELETION_DISABLED].message
        return DeleteTopicsResponse(responses=[_result(one, code, message) for one in wanted])
    results: list[DeletableTopicResult] = []
    valid: list[_Entry] = []
    for entry in dict.fromkeys(wanted):
        problem = _problem(entry, wanted)
        if problem is None:
            valid.append(entry)
        else:
            results.append(_result(entry, codes.INVALID_REQUEST, problem))
    # An id and the name of the same topic: the second finds it gone already.
    outcomes = await ctx.topics.delete_topics(valid)
    for entry, outcome in zip(valid, outcomes, strict=True):
        if isinstance(outcome, KafkaError):
            results.append(_result(entry, outcome.code, outcome.message))
        else:
            results.append(_result((outcome.name, outcome.topic_id), 0, None))
    return DeleteTopicsResponse(responses=results)


def _wanted(version: int, request: DeleteTopicsRequest) -> list[_Entry]:
    if version < 6:
        return [(name, None) for name in request.topic_names]
    return [(one.name, None if one.topic_id == ZERO_ID else one.topic_id) for one in request.topics]


def _problem(entry: _Entry, wanted: list[_Entry]) -> str | None:
    name, topic_id = entry
    if name is not None and topic_id is not None:
        return "You may not specify both topic name and topic id."
    if name is None and topic_id is None:
        return "Neither topic name nor id were specified."
    if wanted.count(entry) > 1:
        return "Duplicate topic name." if topic_id is None else "Duplicate topic id."
    return None


def _result(entry: _Entry, code: int, message: str | None) -> DeletableTopicResult:
    name, topic_id = entry
    return DeletableTopicResult(
        name=name, topic_id=topic_id or ZERO_ID, error_code=code, error_message=message
    )

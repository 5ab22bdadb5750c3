"""Metadata 0-13, the part that creates topics.

The engine answers Metadata itself and passes a frame up only when it names topics that are missing
and may be created. As in Kafka the creation is only begun here: the engine answers the frame from
the image as it is, mostly UNKNOWN_TOPIC_OR_PARTITION, and the client comes back for the topic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.handlers.context import REDISPATCH

if TYPE_CHECKING:
    from penstock.handlers.context import Context, RequestHeader
    from penstock.protocol.messages.metadata import MetadataRequest


def handle(ctx: Context, header: RequestHeader, request: MetadataRequest) -> object:
    if request.allow_auto_topic_creation and ctx.config.flag("auto.create.topics.enable"):
        topics = request.topics if isinstance(request.topics, list) else []
        ctx.topics.begin_auto_create([one.name for one in topics if one.name is not None])
    return REDISPATCH

"""InitProducerId 0-5, idempotent producers only.

Without a transactional id every request gets a new id with epoch 0, as in Kafka, whatever id and
epoch it names. A transactional id is refused with an error that clients do not retry: transactions
come with a later release.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.protocol import errors_table as codes
from penstock.protocol.messages.init_producer_id import (
    InitProducerIdRequest,
    InitProducerIdResponse,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from penstock.handlers.context import Context, RequestHeader


def handle(
    ctx: Context, header: RequestHeader, request: InitProducerIdRequest
) -> InitProducerIdResponse | Awaitable[InitProducerIdResponse]:
    if (request.producer_id == -1) != (request.producer_epoch == -1):
        return _refusal(codes.INVALID_REQUEST)
    if request.transactional_id == "":
        return _refusal(codes.INVALID_REQUEST)
    if request.transactional_id is not None:
        return _refusal(codes.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
    producer_id = ctx.producer_ids.try_next()
    if producer_id is not None:
        return InitProducerIdResponse(producer_id=producer_id, producer_epoch=0)
    return _from_next_block(ctx)


async def _from_next_block(ctx: Context) -> InitProducerIdResponse:
    return InitProducerIdResponse(producer_id=await ctx.producer_ids.next(), producer_epoch=0)


def _refusal(code: int) -> InitProducerIdResponse:
    return InitProducerIdResponse(error_code=code, producer_id=-1, producer_epoch=-1)

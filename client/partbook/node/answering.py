"""How a party answers a Flower message: with what was asked, or with a refusal of our own words."""

from __future__ import annotations

import logging
from collections.abc import Callable

from flwr.app import Message, RecordDict

from partbook.errors import NodeFailed, PartbookError
from partbook.plan import wire

log = logging.getLogger(__name__)


def answer(message: Message, work: Callable[[], RecordDict]) -> Message:
    """The reply to `message` with what `work` gives; an error becomes a refusal, never a traceback.

    Of an error that nobody foresaw only its kind is told: its words may be about recordings.
    """
    try:
        content = work()
    except PartbookError as error:
        log.warning("declined %s: %s: %s", message.metadata.message_type, type(error).__name__, error)
        content = wire.pack_refusal(error)
    except Exception as error:
        log.exception("failed on %s", message.metadata.message_type)
        content = wire.pack_refusal(NodeFailed(f"The node failed with {type(error).__name__}; its own log says why."))
    return Message(content, reply_to=message)

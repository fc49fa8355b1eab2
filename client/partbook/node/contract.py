"""What is used of Flower 1.41.0 beyond its public interface, and the check that it is all still there.

Flower promises nothing about these names. So its version is pinned, each name that `partbook.node.fleet` uses stands in
`USED` with what is expected of it, and a party refuses to come online (`FlowerChanged`, which names what is missing)
instead of failing in the middle of a round. Whoever moves to another version of Flower begins here.
"""

from __future__ import annotations

import importlib
import inspect
from enum import EnumMeta
from importlib.metadata import version
from typing import Final

from partbook.errors import FlowerChanged

FLOWER: Final = "1.41.0"

# Of a function: parameters. Of a message of Protocol Buffers: fields. Of an enumeration: members. Of a class: its
# constructor's parameters, and after a dot attributes.
USED: Final[dict[str, tuple[str, ...]]] = {
    "flwr.app:Message": ("reply_to", ".object_id", ".deflate", ".metadata"),
    "flwr.app:RecordDict": (".inflate",),
    "flwr.app.message:make_message": ("metadata", "content"),
    "flwr.app.message:remove_content_from_message": ("message",),
    "flwr.app.metadata:Metadata": (".message_type", ".run_id", ".message_id", ".__dict__"),
    "flwr.common.serde:message_from_proto": ("message_proto",),
    "flwr.common.serde:message_to_proto": ("message",),
    "flwr.proto.fleet_pb2:RegisterNodeFleetRequest": ("public_key",),
    "flwr.proto.fleet_pb2:ActivateNodeRequest": ("public_key", "heartbeat_interval"),
    "flwr.proto.fleet_pb2:ActivateNodeResponse": ("node_id",),
    "flwr.proto.fleet_pb2:DeactivateNodeRequest": ("node_id",),
    "flwr.proto.fleet_pb2:PullMessagesRequest": ("node",),
    "flwr.proto.fleet_pb2:PullMessagesResponse": ("messages_list", "message_object_trees"),
    "flwr.proto.fleet_pb2:PushMessagesRequest": ("node", "messages_list", "message_object_trees"),
    "flwr.proto.fleet_pb2:PushMessagesResponse": ("objects_to_push", "session_id"),
    "flwr.proto.heartbeat_pb2:SendNodeHeartbeatRequest": ("node", "heartbeat_interval"),
    "flwr.proto.heartbeat_pb2:SendNodeHeartbeatResponse": ("success",),
    "flwr.proto.message_pb2:ConfirmMessageReceivedRequest": ("node", "run_id", "message_object_id"),
    "flwr.proto.message_pb2:ObjectTree": ("object_id", "children"),
    "flwr.proto.message_pb2:PullObjectRequest": ("node", "run_id", "object_id"),
    "flwr.proto.message_pb2:PullObjectResponse": ("object_found", "object_available", "object_content"),
    "flwr.proto.message_pb2:PushObjectRequest": ("node", "run_id", "object_id", "object_content", "session_id"),
    "flwr.proto.node_pb2:Node": ("node_id",),
    "flwr.supercore.error:FlowerError": (".from_json",),
    "flwr.supercore.error.base:ApiErrorCode": (
        *("PUBLIC_KEY_ALREADY_IN_USE", "FLEET_NODE_ACTIVATION_FAILED", "FLEET_RUN_STATUS_NOT_ALLOWED"),
    ),
    "flwr.supercore.inflatable.inflatable_object:get_all_nested_objects": ("obj",),
    "flwr.supercore.inflatable.inflatable_object:get_object_tree": ("obj",),
    "flwr.supercore.inflatable.inflatable_object:iterate_object_tree": ("tree",),
    "flwr.supercore.inflatable.inflatable_object:no_object_id_recompute": (),
    "flwr.supercore.inflatable.inflatable_utils:inflate_object_from_contents": ("object_id", "object_contents"),
    "flwr.supernode.fleet_http_client:FleetHttpClient": (
        *("base_url", "verify", "timeout", "interceptors"),
        *(".RegisterNode", ".ActivateNode", ".DeactivateNode", ".SendNodeHeartbeat", ".PullMessages", ".PushMessages"),
        *(".PullObject", ".PushObject", ".ConfirmMessageReceived", ".close"),
    ),
    "flwr.supernode.node_auth_http_interceptor:NodeAuthHttpInterceptor": ("private_key", "public_key", ".intercept"),
}


def contract() -> None:
    """Return if the installed Flower is the one that the fleet link was written against.

    Raises:
        FlowerChanged: it is another version, or something of it is not where it was; the message names it.
    """
    found = version("flwr")
    if found != FLOWER:
        raise FlowerChanged(f"flwr {found} is installed; this Partbook speaks {FLOWER}. Install the pinned version.")
    for name, parts in USED.items():
        _held(name, parts)
    _client_is_httpx()


def _held(name: str, parts: tuple[str, ...]) -> None:
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise _changed(name) from error
    descriptor = getattr(found, "DESCRIPTOR", None)
    if descriptor is not None:
        there = set(descriptor.fields_by_name)
    elif isinstance(found, EnumMeta):
        there = set(found.__members__)
    elif not callable(found):
        raise _changed(name)
    else:
        there = set(inspect.signature(found).parameters)
    for part in parts:
        if not (hasattr(found, part[1:]) if part.startswith(".") else part in there):
            raise _changed(f"{name}{part if part.startswith('.') else f'({part})'}")


def _client_is_httpx() -> None:
    """The one attribute that is replaced, and not only read, is what it was."""
    import ssl

    import httpx
    from flwr.supernode.fleet_http_client import FleetHttpClient

    client = FleetHttpClient("https://localhost", verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    try:
        if not isinstance(getattr(client, "_client", None), httpx.Client):
            raise _changed("flwr.supernode.fleet_http_client:FleetHttpClient._client")
    finally:
        client.close()


def _changed(name: str) -> FlowerChanged:
    return FlowerChanged(
        f"Flower's {name.replace(':', '.')} is not what it was in {FLOWER}, although that is the version installed; "
        f"install flwr=={FLOWER} anew, unaltered."
    )

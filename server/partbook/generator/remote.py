"""Pieces from somebody else's server: `compose`, with the model at the other end of a gRPC channel."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import grpc

from partbook.errors import AlteredFile, ConfigError, GenerationError
from partbook.generator.asking import CONTROLS, PieceRequest, controls_of, metre_of
from partbook.generator.composing import Bar, Piece, PlayedNote
from partbook.generator.v1 import generator_pb2 as messages
from partbook.generator.v1 import generator_pb2_grpc as stubs


def compose_remotely(
    address: str, request: PieceRequest, *, prompt_midi: bytes | None = None, authorities: Path | None = None
) -> Iterator[Bar | Piece]:
    """The bars of a piece as a server writes them, then the piece. Closing the iterator cancels the call.

    Args:
        address: host:port.
        request: what is wanted; its prompt is sent as `prompt_midi`, its memory as it is.
        prompt_midi: the MIDI file to go on from.
        authorities: PEM file of the certificates to trust, for a server with TLS; None speaks without.

    Raises:
        GenerationError: the server cannot be reached, or declines.
        AlteredFile: the MIDI file did not arrive as it was sent.
        ConfigError: the certificates cannot be read.
    """
    message = messages.GenerateRequest(
        seed=request.seed,
        seconds=request.seconds,
        max_tokens=request.max_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        prompt_midi=prompt_midi,
        log_mel=None if request.memory is None else request.memory.astype("<f2").tobytes(),
        top_k=request.top_k,
        min_p=request.min_p,
        repetition_penalty=request.repetition_penalty,
        repetition_window=request.repetition_window,
        beam_width=request.beam_width,
        **controls_of(request),
    )
    with _channel(address, authorities) as channel:
        call = stubs.GeneratorStub(channel).Generate(message)
        try:
            for event in call:
                if event.WhichOneof("event") == "bar":
                    yield _bar(event.bar)
                elif event.WhichOneof("event") == "piece":
                    yield _piece(event.piece, request)
        except grpc.RpcError as error:
            _explain(address, error)
        finally:
            call.cancel()


def _channel(address: str, authorities: Path | None) -> Any:
    if authorities is None:
        return grpc.insecure_channel(address)
    try:
        return grpc.secure_channel(address, grpc.ssl_channel_credentials(authorities.read_bytes()))
    except OSError as error:
        raise ConfigError(f"The certificates {authorities} cannot be read: {error.strerror}.") from error


def _bar(bar: Any) -> Bar:
    notes = tuple(PlayedNote(n.onset, n.pitch, n.program, n.duration, n.velocity) for n in bar.notes)
    return Bar(bar.number, bar.start, bar.end, notes, bar.given)


def _piece(piece: Any, request: PieceRequest) -> Piece:
    if hashlib.sha256(piece.midi).hexdigest() != piece.midi_sha256:
        raise AlteredFile("The MIDI file's SHA-256 is not the one the server sent with it; ask for the piece again.")
    used = replace(
        request,
        seed=piece.seed,
        seconds=piece.seconds_wanted,
        max_tokens=piece.max_tokens,
        temperature=piece.temperature,
        top_p=piece.top_p,
        # A server that does not know a field did without it.
        top_k=piece.top_k,
        min_p=piece.min_p,
        repetition_penalty=piece.repetition_penalty if piece.HasField("repetition_penalty") else 1.0,
        repetition_window=piece.repetition_window or request.repetition_window,
        beam_width=piece.beam_width,
        metre=metre_of(piece.metre),
        hand="score",  # the only one that a server is asked for
        **{name: getattr(piece, name) if piece.HasField(name) else None for name in CONTROLS},
    )
    continues_at = piece.continues_at if piece.HasField("continues_at") else None
    return Piece(piece.midi, piece.seconds, piece.tokens, piece.release_id, used, continues_at)


def _explain(address: str, error: grpc.RpcError) -> NoReturn:
    code, details = error.code(), error.details()
    if code == grpc.StatusCode.UNAVAILABLE:
        raise GenerationError(
            f"No generator answers at {address} ({details}); start one with `partbook serve`, "
            "or give --tls-ca if it speaks TLS."
        ) from error
    raise GenerationError(f"The server at {address} declined ({code.name}): {details}") from error

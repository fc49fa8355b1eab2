"""The gRPC service: translates messages to requests and bars to messages, and holds every limit."""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
from collections.abc import Iterator
from typing import Any, Final, NoReturn

import grpc

from partbook.errors import GenerationError, InputError, PartbookError
from partbook.generator import asking, prompts
from partbook.generator.asking import PieceRequest
from partbook.generator.composing import Bar, Generator, Piece, compose
from partbook.generator.release import Release
from partbook.generator.v1 import generator_pb2 as messages
from partbook.generator.v1 import generator_pb2_grpc as stubs
from partbook.model.sampling import TOP_P

SERVICE: Final = "partbook.generator.v1.Generator"


class GeneratorService(stubs.GeneratorServicer):  # type: ignore[misc]  # compiled stubs carry no types
    """Serves one release.

    Args:
        release: what Describe tells about.
        generator: the same, loaded.
        most_at_once: pieces written at a time; more are refused, not queued, so a client knows to wait.
    """

    def __init__(self, release: Release, generator: Generator, *, most_at_once: int = 2) -> None:
        self._release, self._generator = release, generator
        self._most_at_once = most_at_once
        self._places = threading.BoundedSemaphore(most_at_once)

    def Describe(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 (the .proto's name)
        """What is served, and its limits."""
        return messages.DescribeResponse(
            release_id=self._release.id,
            signer_fingerprint=self._release.signer.fingerprint,
            name=self._release.name,
            about_json=json.dumps(self._release.about, sort_keys=True, ensure_ascii=False),
            longest_seconds=asking.LONGEST_SECONDS,
            most_tokens=asking.MOST_TOKENS,
            most_at_once=self._most_at_once,
        )

    def Generate(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:  # noqa: N802
        """One piece, bar by bar."""
        if not self._places.acquire(blocking=False):
            _refuse(
                context,
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{self._most_at_once} pieces are being written, as many as fit here; try again later.",
            )
        try:
            try:
                wish = request_of(request)
            except PartbookError as error:
                _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
            try:
                for event in compose(self._generator, wish, cancelled=lambda: not context.is_active()):
                    yield event_of(event)
            except InputError as error:
                _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, f"prompt_midi: {error}")
            except GenerationError as error:
                _refuse(context, grpc.StatusCode.ABORTED, str(error))
        finally:
            self._places.release()


def request_of(message: Any) -> PieceRequest:
    """A GenerateRequest as a request; an absent seed is drawn.

    Raises:
        PartbookError: a field is out of range; the message begins with or contains the field's name.
    """
    prompt = memory = None
    if message.HasField("prompt_midi"):
        with _naming("prompt_midi"):
            prompt = prompts.prompt_of_midi(message.prompt_midi)
    if message.HasField("log_mel"):
        memory = prompts.memory_of_mel(message.log_mel)
    elif message.HasField("audio_clip"):
        with _naming("audio_clip"):
            memory = prompts.memory_of_clip(message.audio_clip)
    return PieceRequest(
        seed=message.seed if message.HasField("seed") else secrets.randbelow(2**32),
        seconds=asking.seconds_of(*(_given(message, name) for name in ("seconds", "bars"))),
        max_tokens=message.max_tokens if message.HasField("max_tokens") else asking.DEFAULT_TOKENS,
        temperature=message.temperature if message.HasField("temperature") else 1.0,
        top_p=message.top_p if message.HasField("top_p") else TOP_P,
        prompt=prompt,
        memory=memory,
        # Absent numbers read as 0, which turns these off.
        top_k=message.top_k,
        min_p=message.min_p,
        repetition_penalty=message.repetition_penalty if message.HasField("repetition_penalty") else 1.0,
        repetition_window=(
            message.repetition_window if message.HasField("repetition_window") else asking.DEFAULT_WINDOW
        ),
        beam_width=message.beam_width,
        metre=asking.metre_of(_given(message, "metre")),
        **{name: _given(message, name) for name in asking.CONTROLS},
    )


def event_of(event: Bar | Piece) -> Any:
    """A bar or a piece as a GenerateEvent."""
    if isinstance(event, Bar):
        notes = [
            messages.Note(onset=n.onset, duration=n.duration, pitch=n.pitch, velocity=n.velocity, program=n.program)
            for n in event.notes
        ]
        return messages.GenerateEvent(
            bar=messages.Bar(number=event.number, start=event.start, end=event.end, notes=notes, given=event.given)
        )
    request = event.request
    return messages.GenerateEvent(
        piece=messages.Piece(
            midi=event.midi,
            midi_sha256=event.midi_sha256,
            seconds=event.seconds,
            tokens=event.tokens,
            release_id=event.release_id,
            seed=request.seed,
            temperature=request.temperature,
            top_p=request.top_p,
            max_tokens=request.max_tokens,
            seconds_wanted=request.seconds,
            continues_at=event.continues_at,
            top_k=request.top_k,
            min_p=request.min_p,
            repetition_penalty=request.repetition_penalty,
            repetition_window=request.repetition_window,
            beam_width=request.beam_width,
            **asking.controls_of(request),
        )
    )


def _given(message: Any, field: str) -> Any:
    return getattr(message, field) if message.HasField(field) else None


@contextlib.contextmanager
def _naming(field: str) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise type(error)(f"{field}: {error}") from error


def _refuse(context: grpc.ServicerContext, code: grpc.StatusCode, details: str) -> NoReturn:
    context.abort(code, details)
    raise AssertionError("abort raises")

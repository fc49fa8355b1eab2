"""The real server, as a process, and real clients."""

from __future__ import annotations

import datetime
import hashlib
import io
import ipaddress
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
import soundfile
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from walks import ENVIRONMENT, PARTBOOK, serving, tune

from partbook.errors import ConfigError, GenerationError
from partbook.generator.composing import Piece, PieceRequest, compose
from partbook.generator.prompts import memory_of_clip
from partbook.generator.remote import compose_remotely
from partbook.generator.serving import GeneratorServer, TlsFiles
from partbook.generator.v1 import generator_pb2 as messages
from partbook.generator.v1 import generator_pb2_grpc as stubs

pytestmark = pytest.mark.timeout(300)  # whoever hears audio first compiles librosa's kernels

SERVICE = "partbook.generator.v1.Generator"
LONG = {"seconds": 600.0, "max_tokens": 16_384}


@pytest.fixture
def channel(server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server["address"]) as opened:
        yield opened


@pytest.fixture
def stub(channel):
    return stubs.GeneratorStub(channel)


def request(**fields) -> messages.GenerateRequest:
    return messages.GenerateRequest(**{"seed": 5, "seconds": 4.0, "max_tokens": 400, **fields})


def refused(stub, **fields) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as refusal:
        list(stub.Generate(request(**fields)))
    return refusal.value


def test_describe_names_release_signer_and_limits(stub, release, server):
    described = stub.Describe(messages.DescribeRequest())
    assert described.release_id == release.id == server["release"]
    assert described.signer_fingerprint == release.signer.fingerprint == server["signer"]
    assert described.name == "tiny"
    assert json.loads(described.about_json)["training"] == {"loss": 0.5}
    assert (described.longest_seconds, described.most_tokens, described.most_at_once) == (600.0, 16_384, 2)


def test_a_streamed_piece_is_the_one_written_without_a_server(stub, generator, release):
    *bars, last = stub.Generate(request())
    *_, local = compose(generator, PieceRequest(seed=5, seconds=4.0, max_tokens=400))
    assert all(event.WhichOneof("event") == "bar" for event in bars)
    assert sum(len(event.bar.notes) for event in bars) > 4
    piece = last.piece
    assert piece.midi == local.midi
    assert piece.midi_sha256 == hashlib.sha256(piece.midi).hexdigest()
    assert (piece.release_id, piece.seed, piece.tokens) == (release.id, 5, local.tokens)
    assert piece.seconds == bars[-1].bar.end >= 4.0
    assert not piece.HasField("continues_at")


def test_a_missing_seed_is_drawn_and_reported_and_reproduces_the_piece(stub):
    first = list(stub.Generate(messages.GenerateRequest(seconds=3, max_tokens=300)))[-1].piece
    again = list(stub.Generate(messages.GenerateRequest(seconds=3, max_tokens=300, seed=first.seed)))[-1].piece
    assert first.midi == again.midi


def test_a_prompt_is_continued_through_the_server(stub):
    events = list(stub.Generate(request(prompt_midi=tune(9, bars=2).dumps_midi())))
    assert events[0].bar.given
    assert events[-1].piece.continues_at == events[0].bar.end > 3.5


@pytest.mark.parametrize(
    "controls",
    [{"top_k": 20, "min_p": 0.05, "repetition_penalty": 1.5, "repetition_window": 30}, {"beam_width": 2}],
)
def test_controls_go_through_the_server_and_come_back_as_used(controls, generator, server):
    wanted = PieceRequest(seed=5, seconds=3.0, max_tokens=200, **controls)
    *_, remote = compose_remotely(server["address"], wanted)
    *_, local = compose(generator, wanted)
    assert remote.midi == local.midi
    assert remote.request == wanted


def test_a_mel_primes_a_piece_through_the_server(stub):
    mel = np.random.default_rng(0).uniform(-1, 1, (688, 128)).astype("<f2").tobytes()
    assert list(stub.Generate(request(log_mel=mel)))[-1].piece.midi != list(stub.Generate(request()))[-1].piece.midi


def test_an_audio_clip_primes_a_piece_like_its_mel(stub):
    file = io.BytesIO()
    tone = 0.1 * np.sin(2 * np.pi * 440 * np.arange(9 * 44_100) / 44_100)
    soundfile.write(file, tone, 44_100, format="FLAC")
    mel = memory_of_clip(file.getvalue()).astype("<f2").tobytes()
    pieces = [
        list(stub.Generate(request(**how)))[-1].piece for how in ({"audio_clip": file.getvalue()}, {"log_mel": mel})
    ]
    assert pieces[0].midi == pieces[1].midi


def test_reflection_alone_is_enough_to_generate(channel):
    database = ProtoReflectionDescriptorDatabase(channel)
    assert {SERVICE, "grpc.health.v1.Health"} <= set(database.get_services())
    method = DescriptorPool(database).FindServiceByName(SERVICE).FindMethodByName("Generate")
    asking, answering = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
    call = channel.unary_stream(
        f"/{SERVICE}/Generate",
        request_serializer=asking.SerializeToString,
        response_deserializer=answering.FromString,
    )
    events = [MessageToDict(event) for event in call(asking(seed=1, seconds=3, max_tokens=300))]
    assert "notes" in events[0]["bar"]
    assert events[-1]["piece"]["midi"]


def test_the_standard_health_service_says_serving(channel):
    health = health_pb2_grpc.HealthStub(channel)
    for name in ("", SERVICE):
        answer = health.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", 2**60),
        ("seconds", 0.0),
        ("seconds", 1e9),
        ("max_tokens", 0),
        ("temperature", -1.0),
        ("top_p", 2.0),
        ("min_p", 2.0),
        ("repetition_penalty", 0.0),
        ("repetition_window", 0),
        ("beam_width", 17),
        ("prompt_midi", b"no midi"),
        ("log_mel", b"short"),
        ("audio_clip", b"OggS neither"),
    ],
)
def test_a_field_out_of_range_is_named(stub, field, value):
    error = refused(stub, **{field: value})
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert field in error.details()


def test_a_message_over_four_mebibytes_is_refused(stub):
    error = refused(stub, audio_clip=bytes(5 * 2**20))
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_more_pieces_than_places_are_refused_and_cancelling_frees_a_place(stub, channel):
    calls = [stub.Generate(request(**LONG)) for _ in range(2)]
    for call in calls:
        next(call)
    error = refused(stub)
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "2 pieces" in error.details()
    health = health_pb2_grpc.HealthStub(channel)  # answers although every place is taken
    assert health.Check(health_pb2.HealthCheckRequest(), timeout=60).status == 1
    for call in calls:
        call.cancel()
    assert _once_there_is_a_place(lambda: list(stub.Generate(request())))[-1].piece.midi


def _once_there_is_a_place(ask: Callable[[], list[messages.GenerateEvent]]) -> list[messages.GenerateEvent]:
    """A call that was given up frees its place at the next token, milliseconds later."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return ask()
        except grpc.RpcError as refusal:
            if refusal.code() != grpc.StatusCode.RESOURCE_EXHAUSTED or time.monotonic() > deadline:
                raise
        time.sleep(0.05)


def test_a_deadline_stops_the_writing_too(stub):
    for _ in range(3):  # more often than there are places
        with pytest.raises(grpc.RpcError) as late:
            _once_there_is_a_place(lambda: list(stub.Generate(request(**LONG), timeout=0.5)))
        assert late.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert _once_there_is_a_place(lambda: list(stub.Generate(request())))[-1].piece.midi


def test_the_documented_client_runs_as_it_is(server, tmp_path):
    client = Path(__file__).parents[2] / "docs" / "clients" / "generate.py"
    command = [sys.executable, str(client), server["address"], str(tmp_path / "piece.mid")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (tmp_path / "piece.mid").read_bytes().startswith(b"MThd")
    assert server["release"] in done.stdout
    assert "pitch" in done.stdout


def test_a_second_server_on_the_same_port_is_refused(release, server):
    with pytest.raises(ConfigError, match=f"cannot listen on {server['address']}"):
        GeneratorServer(release, server["address"])


@pytest.mark.parametrize("address", ["127.0.0.1", ":50051", "127.0.0.1:http", "127.0.0.1:70000"])
def test_what_is_no_address_is_refused(release, address):
    with pytest.raises(ConfigError, match="not an address"):
        GeneratorServer(release, address)


@pytest.mark.parametrize("name", ["adapter.safetensors", "manifest.sig"])
def test_the_server_refuses_an_altered_release_by_name(release, tmp_path, name):
    copy = Path(shutil.copytree(release.path, tmp_path / "copy"))
    blob = bytearray((copy / name).read_bytes())
    blob[-1] ^= 1
    (copy / name).write_bytes(blob)
    command = [*PARTBOOK, "serve", str(copy), "--address", "127.0.0.1:0"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert name in done.stderr
    assert "Serving" not in done.stdout


def test_sigterm_lets_a_running_piece_finish_takes_no_more_and_exits_cleanly(release):
    with serving(release.path) as (process, where), grpc.insecure_channel(where["address"]) as channel:
        stub = stubs.GeneratorStub(channel)
        call = stub.Generate(request(seconds=20.0, max_tokens=1000))
        next(call)
        process.send_signal(signal.SIGTERM)
        events = list(call)
        assert events[-1].piece.midi
        assert process.wait(60) == 0
        with pytest.raises(grpc.RpcError) as gone:
            stub.Describe(messages.DescribeRequest())
        assert gone.value.code() == grpc.StatusCode.UNAVAILABLE


def test_a_second_signal_does_not_wait_for_running_pieces(release):
    with serving(release.path) as (process, where), grpc.insecure_channel(where["address"]) as channel:
        call = stubs.GeneratorStub(channel).Generate(request(**LONG))
        next(call)
        process.send_signal(signal.SIGINT)
        with ThreadPoolExecutor() as pool:
            ended = pool.submit(_end_of, call)
            assert _once_it_takes_no_more(channel) == grpc.StatusCode.UNAVAILABLE
            assert not ended.done()
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
            assert isinstance(ended.result(60), grpc.RpcError), "the piece was not written to its end"


def _end_of(call) -> messages.GenerateEvent | grpc.RpcError:
    try:
        return list(call)[-1]
    except grpc.RpcError as error:
        return error


def _once_it_takes_no_more(channel) -> grpc.StatusCode:
    """How a server that was told to end refuses a call."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            stubs.GeneratorStub(channel).Describe(messages.DescribeRequest())
        except grpc.RpcError as gone:
            if gone.code() != grpc.StatusCode.CANCELLED:  # that one had come in, and was let go
                return gone.code()
    raise AssertionError("the server goes on as if it had not been told to end")


def test_tls_protects_the_channel(release, tmp_path):
    certificate, private = _self_signed(tmp_path)
    server = GeneratorServer(release, "127.0.0.1:0", tls=TlsFiles(certificate, private))
    server.start()
    try:
        trusted = grpc.ssl_channel_credentials(certificate.read_bytes())
        with grpc.secure_channel(server.address, trusted) as channel:
            described = stubs.GeneratorStub(channel).Describe(messages.DescribeRequest(), timeout=10)
            assert described.release_id == release.id
        asked = PieceRequest(seed=5, seconds=2.0, max_tokens=200)
        *_, piece = compose_remotely(server.address, asked, authorities=certificate)
        assert isinstance(piece, Piece)
        with pytest.raises(GenerationError, match="--tls-ca"):
            list(compose_remotely(server.address, asked))
    finally:
        server.stop()
    with pytest.raises(ConfigError, match="belong together"):
        GeneratorServer(release, "127.0.0.1:0", tls=TlsFiles(certificate, certificate))


def _self_signed(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    today = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "tls.crt", folder / "tls.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    paths[1].write_bytes(pem)
    return paths

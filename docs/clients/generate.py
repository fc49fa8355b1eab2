"""Ask a Partbook server for ten seconds of music: python generate.py 127.0.0.1:50051 piece.mid"""

import sys
from pathlib import Path

import grpc

from partbook.generator.v1 import generator_pb2, generator_pb2_grpc

generator = generator_pb2_grpc.GeneratorStub(grpc.insecure_channel(sys.argv[1]))
for event in generator.Generate(generator_pb2.GenerateRequest(seconds=10, seed=1)):
    for note in event.bar.notes:
        print(f"{note.onset:7.2f} s  pitch {note.pitch}  for {note.duration:.2f} s")
Path(sys.argv[2]).write_bytes(event.piece.midi)
print(f"{event.piece.seconds:.1f} s by release {event.piece.release_id}")

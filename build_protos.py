"""Hatch build hook: compile the generator's .proto files, so that no generated file lives in the repository."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ProtoBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Runs protoc (from grpcio-tools) over server/partbook/**/*.proto before a wheel or an editable install."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write `*_pb2.py`, `*_pb2.pyi` and `*_pb2_grpc.py` beside each .proto."""
        from grpc_tools import protoc

        root = Path(self.root) / "server"
        well_known = str(resources.files("grpc_tools") / "_proto")
        for proto in sorted(root.rglob("*.proto")):
            arguments = [
                "protoc",
                f"-I{root}",
                f"-I{well_known}",
                f"--python_out={root}",
                f"--pyi_out={root}",
            ]
            if protoc.main([*arguments, f"--grpc_python_out={root}", str(proto.relative_to(root))]) != 0:
                raise RuntimeError(f"protoc could not compile {proto}; its message stands above.")

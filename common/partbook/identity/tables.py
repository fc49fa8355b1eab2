"""TOML tables that say, of everything they lack, where it is: `roster.toml: members[2].identity is missing`."""

from __future__ import annotations

import base64
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from partbook.errors import ConfigError, InputError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Table:
    """One table of a TOML document that people may have edited. Every method raises `ConfigError`.

    Attributes:
        values: the table.
        where: the document, as messages name it.
        path: the table's place in it, such as `members[2].`; empty at the top.
    """

    values: Mapping[str, Any]
    where: str
    path: str = ""

    @classmethod
    def parse(cls, text: str, where: str) -> Table:
        """The document that `text` is."""
        try:
            return cls(tomllib.loads(text), where)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise ConfigError(f"{where} is not TOML ({error}).") from error

    @classmethod
    def read(cls, path: Path) -> Table:
        """The document in a file."""
        try:
            return cls.parse(path.read_bytes().decode("utf-8"), str(path))
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path} is not UTF-8 text; give the TOML file that Partbook wrote.") from error

    def wrong(self, key: str, reason: str) -> ConfigError:
        """The error that says `reason` of `key`, to be raised."""
        return ConfigError(f"{self.where}: {self.path}{key[:64]} {reason.rstrip('.')}.")

    def only(self, *keys: str) -> None:
        """Refuse keys that mean nothing here: no signature would cover them."""
        for key in self.values:
            if key not in keys:
                raise self.wrong(key, f"is not a key that belongs here; known are {', '.join(keys)}")

    def text(self, key: str) -> str:
        """A string."""
        return str(self._get(key, str, "a string"))

    def integer(self, key: str) -> int:
        """A whole number."""
        return int(self._get(key, int, "a whole number"))

    def base64(self, key: str) -> bytes:
        """Bytes in padded base64."""
        try:
            return base64.b64decode(self.text(key), validate=True)
        except ValueError as error:
            raise self.wrong(key, "is not base64") from error

    def parsed(self, key: str, parse: Callable[[str], T]) -> T:
        """What `parse` makes of a string; an `InputError` of its own is put down to `key`."""
        try:
            return parse(self.text(key))
        except InputError as error:
            raise self.wrong(key, f"cannot be used: {error}") from error

    def table(self, key: str) -> Table:
        """The table inside, or an empty one."""
        inside = self._get(key, dict, "a table") if key in self.values else {}
        return Table(inside, self.where, f"{self.path}{key}.")

    def tables(self, key: str) -> list[Table]:
        """The tables of a list, counted from 1 in messages."""
        found = []
        for index, inside in enumerate(self._get(key, list, "a list of tables"), start=1):
            if not isinstance(inside, dict):
                raise self.wrong(f"{key}[{index}]", "must be a table")
            found.append(Table(inside, self.where, f"{self.path}{key}[{index}]."))
        return found

    def _get(self, key: str, kind: type, wanted: str) -> Any:
        if key not in self.values:
            raise self.wrong(key, f"is missing; it must be {wanted}")
        value = self.values[key]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self.wrong(key, f"must be {wanted}")
        return value

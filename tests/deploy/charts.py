"""Renders what our chart uses of Helm's templates: values, if, range, define, include and three functions."""

import json
import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

_ACTION = re.compile(r"\{\{(-?)\s*(/\*.*?\*/|.*?)\s*(-?)\}\}", re.DOTALL)
_WORD = re.compile(r'"(?:[^"\\]|\\.)*"|[^\s"]+')


@dataclass
class Branch:
    """`if`, `range`, `define`, or the whole file."""

    kind: str
    subject: str = ""
    body: list[Any] = field(default_factory=list)
    otherwise: list[Any] | None = None

    def add(self, part: Any) -> None:
        (self.body if self.otherwise is None else self.otherwise).append(part)


def _parse(text: str) -> Branch:
    stack, at, trim = [Branch("file")], 0, False
    for match in _ACTION.finditer(text):
        literal = text[at : match.start()]
        literal = literal.lstrip() if trim else literal
        stack[-1].add(literal.rstrip() if match.group(1) else literal)
        at, trim = match.end(), bool(match.group(3))
        action = match.group(2)
        kind, _, rest = action.partition(" ")
        if action.startswith("/*"):
            continue
        if kind in ("if", "range", "define"):
            stack.append(Branch(kind, rest.strip()))
        elif kind == "else":
            assert not rest, "`else if` is outside of what the chart keeps to"
            stack[-1].otherwise = []
        elif kind == "end":
            closed = stack.pop()
            stack[-1].add(closed)
        else:
            stack[-1].add(("say", action))
    stack[-1].add(text[at:].lstrip() if trim else text[at:])
    assert len(stack) == 1, f"{stack[-1].kind} {stack[-1].subject} has no end"
    return stack[0]


class Chart:
    """A chart's folder."""

    def __init__(self, folder: Path) -> None:
        self.about = yaml.safe_load((folder / "Chart.yaml").read_text())
        self.values = yaml.safe_load((folder / "values.yaml").read_text())
        self.schema = json.loads((folder / "values.schema.json").read_text())
        self.templates = {path.name: path.read_text() for path in sorted((folder / "templates").iterdir())}
        self._defined: dict[str, Branch] = {}
        for name in self.templates:
            if name.endswith(".tpl"):
                for part in _parse(self.templates[name]).body:
                    if isinstance(part, Branch):
                        self._defined[json.loads(part.subject)] = part

    def text(self, name: str, values: dict[str, Any]) -> str:
        """One template, rendered."""
        about = {"Name": self.about["name"], "Version": self.about["version"], "AppVersion": self.about["appVersion"]}
        release = {"Name": "ours", "Namespace": "music", "Service": "Helm"}
        root = {"Values": values, "Release": release, "Chart": about}
        return self._render(_parse(self.templates[name]).body, root, root)

    def objects(self, values: dict[str, Any]) -> list[dict[str, Any]]:
        """All objects of all templates."""
        texts = [self.text(name, values) for name in self.templates if name.endswith(".yaml")]
        return [found for text in texts for found in yaml.safe_load_all(text) if found]

    def _render(self, parts: list[Any], here: Any, root: Any) -> str:
        out = ""
        for part in parts:
            if isinstance(part, str):
                out += part
            elif isinstance(part, tuple):
                found = self._value(part[1], here, root)
                out += {True: "true", False: "false"}.get(found, str(found)) if isinstance(found, bool) else str(found)
            elif part.kind == "if":
                chosen = part.body if self._value(part.subject, here, root) else part.otherwise or []
                out += self._render(chosen, here, root)
            elif part.kind == "range":
                out += "".join(self._render(part.body, item, root) for item in self._value(part.subject, here, root))
        return out

    def _value(self, pipeline: str, here: Any, root: Any) -> Any:
        given: list[Any] = []
        for stage in pipeline.split(" | "):
            head, *rest = _WORD.findall(stage)
            words = [self._word(word, here, root) for word in rest] + given
            if head in ("include", "quote", "nindent", "toYaml"):
                given = [self._function(head)(*words, *([root] if head == "include" else []))]
            else:
                assert not words, f"{head} is no function that the chart keeps to"
                given = [self._word(head, here, root)]
        return given[0]

    def _function(self, name: str) -> Callable[..., Any]:
        return {
            "include": lambda named, scope, root: self._render(self._defined[named].body, scope, root),
            "quote": lambda value: json.dumps(str(value)),
            "nindent": lambda width, text: "\n" + textwrap.indent(text, " " * width),
            "toYaml": lambda value: yaml.safe_dump(value, default_flow_style=False).rstrip("\n"),
        }[name]

    @staticmethod
    def _word(word: str, here: Any, root: Any) -> Any:
        if word.startswith('"'):
            return json.loads(word)
        if re.fullmatch(r"-?\d+", word):
            return int(word)
        assert word[0] in ".$", f"{word} is nothing that the chart keeps to"
        found = root if word[0] == "$" else here
        for name in word.lstrip("$").strip(".").split("."):
            if name:
                assert name in found, f"{word} is not in the values"
                found = found[name]
        return found

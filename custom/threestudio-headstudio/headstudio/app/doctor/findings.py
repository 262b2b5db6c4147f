"""What a check says, and how a report of all of them is shown."""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Status = Literal["ok", "note", "problem"]
_MARKS: dict[Status, str] = {"ok": "ok", "note": "note", "problem": "PROBLEM"}
_INDENT = " " * 11
_WIDTH = 100


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        status: "ok"; "note" for what is missing but not needed by headstudio-mini.yaml; "problem"
            for what keeps it from running.
        text: a sentence.
        fix: the command, or else the instruction, that changes it.
        details: more of it, for ``--json``.
    """

    status: Status
    text: str
    fix: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def ok(cls, text: str, **details: Any) -> Finding:
        return cls("ok", text, details=details)

    @classmethod
    def note(cls, text: str, fix: str = "", **details: Any) -> Finding:
        return cls("note", text, fix, details)

    @classmethod
    def problem(cls, text: str, fix: str = "", **details: Any) -> Finding:
        return cls("problem", text, fix, details)


@dataclass(frozen=True)
class Report:
    """Findings by section, in the order they are shown."""

    sections: dict[str, list[Finding]]

    @property
    def ready(self) -> bool:
        """Whether nothing keeps headstudio-mini.yaml from running."""
        return not self._problems()

    def _problems(self) -> list[Finding]:
        return [f for section in self.sections.values() for f in section if f.status == "problem"]

    def as_text(self) -> str:
        lines = []
        for name, findings in self.sections.items():
            lines.append(name)
            for finding in findings:
                lines += _lines(finding)
            lines.append("")
        count = len(self._problems())
        lines.append(
            "Ready: ./install.sh demo can run."
            if self.ready
            else f"Not ready: {count} problem{'s' * (count > 1)}, marked PROBLEM above."
        )
        return "\n".join(lines)

    def as_json(self) -> str:
        report = {
            "ready": self.ready,
            "sections": {
                name: [asdict(finding) for finding in findings]
                for name, findings in self.sections.items()
            },
        }
        return json.dumps(report, indent=2)


def _lines(finding: Finding) -> list[str]:
    """A finding as text: its mark, the sentence, and the remedy on lines of its own."""
    mark = f"  {_MARKS[finding.status]:<9}"
    # Paths and commands are copied from here: they are never broken.
    wrap = textwrap.TextWrapper(
        _WIDTH, subsequent_indent=_INDENT, break_long_words=False, break_on_hyphens=False
    )
    lines = []
    for number, paragraph in enumerate(finding.text.splitlines()):
        wrap.initial_indent = mark if number == 0 else _INDENT
        lines += wrap.wrap(paragraph)
    lines += [f"{_INDENT}-> {line}" for line in finding.fix.splitlines()]
    return lines

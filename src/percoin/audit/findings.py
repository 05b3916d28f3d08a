"""What a check found, and how it is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby

from percoin.printable import printable

_MOST_CHARS = 2000


class FindingStatus(StrEnum):
    """The answer of one check."""

    OK = "ok"
    LEAK = "LEAK"
    CONSTANT = "CONSTANT"
    """Scores that a constant prediction would have."""
    DIFFERS = "DIFFERS"
    """Serving and training are not the same thing."""
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True)
class Finding:
    """One check and its answer.

    Attributes:
        check: What was looked at, two to four words.
        status: The answer.
        evidence: What it rests on, one line.
    """

    check: str
    status: FindingStatus
    evidence: str

    @property
    def is_bad(self) -> bool:
        """Whether what was looked at must not be believed."""
        return self.status in (FindingStatus.LEAK, FindingStatus.CONSTANT, FindingStatus.DIFFERS)


def format_findings(findings: Sequence[Finding]) -> str:
    """One line a check, in columns."""
    width = max(len(finding.check) for finding in findings)
    status_width = max(len(status) for status in FindingStatus)
    return "\n".join(
        f"{finding.status:<{status_width}}  {finding.check:<{width}}  "
        # It may quote a manifest.
        f"{printable(finding.evidence, _MOST_CHARS)}"
        for finding in findings
    )


def summarise(findings: Sequence[Finding]) -> str:
    """How many checks came out which way: ``9 ok, 1 LEAK``."""
    order = list(FindingStatus)
    statuses = sorted((finding.status for finding in findings), key=order.index)
    return ", ".join(f"{len(list(same))} {status}" for status, same in groupby(statuses))

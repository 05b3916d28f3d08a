"""The result of a check, and its text form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby

from percoin.printable import printable

_MOST_CHARS = 2000


class FindingStatus(StrEnum):
    """The result of one check."""

    OK = "ok"
    LEAK = "LEAK"
    CONSTANT = "CONSTANT"
    """Scores that a constant prediction would have."""
    DIFFERS = "DIFFERS"
    """Serving and training are not the same thing."""
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True)
class Finding:
    """One check and its result.

    Attributes:
        check: Name of the check, two to four words.
        status: The result.
        evidence: Numbers or facts behind the result, one line.
    """

    check: str
    status: FindingStatus
    evidence: str

    @property
    def is_bad(self) -> bool:
        """Whether the checked object must not be trusted."""
        return self.status in (FindingStatus.LEAK, FindingStatus.CONSTANT, FindingStatus.DIFFERS)


def format_findings(findings: Sequence[Finding]) -> str:
    """Format one line for each check, in columns."""
    width = max(len(finding.check) for finding in findings)
    status_width = max(len(status) for status in FindingStatus)
    return "\n".join(
        f"{finding.status:<{status_width}}  {finding.check:<{width}}  "
        # The evidence may quote a manifest.
        f"{printable(finding.evidence, _MOST_CHARS)}"
        for finding in findings
    )


def summarise(findings: Sequence[Finding]) -> str:
    """Count the checks by result: ``9 ok, 1 LEAK``."""
    order = list(FindingStatus)
    statuses = sorted((finding.status for finding in findings), key=order.index)
    return ", ".join(f"{len(list(same))} {status}" for status, same in groupby(statuses))

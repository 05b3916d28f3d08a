"""The command: ``python -m percoin.audit symbol=BTCUSDT`` or ``metrics=FILE``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from percoin.audit.findings import Finding, format_findings, summarise
from percoin.audit.run import audit
from percoin.cli import compose_config, run_command
from percoin.config import AuditConfig, OutputFormat, typed

EXIT_LEAK = 3


def main(arguments: Sequence[str]) -> int:
    """Run the checks, print one line each, and return the exit code.

    Returns:
        0 if nothing was found, ``EXIT_LEAK`` if something was, and the code of the
        error if the checks could not be made.
    """
    found: list[Finding] = []

    def command() -> None:
        settings = typed(compose_config("audit", arguments), AuditConfig)
        found.extend(audit(settings))
        print(to_json(settings, found) if settings.output == OutputFormat.JSON else to_text(found))

    code = run_command(command, "audit")
    return code or (EXIT_LEAK if any(finding.is_bad for finding in found) else 0)


def to_text(findings: Sequence[Finding]) -> str:
    """One line a check and one below them."""
    return f"{format_findings(findings)}\n{summarise(findings)}"


def to_json(settings: AuditConfig, findings: Sequence[Finding]) -> str:
    """The same as one JSON object."""
    content = {
        "symbol": settings.symbol,
        "tf": None if settings.symbol is None else settings.tf.name,
        "metrics": settings.metrics,
        "is_bad": any(finding.is_bad for finding in findings),
        "findings": [asdict(finding) for finding in findings],
    }
    return json.dumps(content)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

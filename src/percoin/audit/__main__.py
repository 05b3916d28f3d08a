"""The command: ``python -m percoin.audit symbol=BTCUSDT [replay=true]`` or ``metrics=FILE``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict

from percoin.audit.findings import Finding, format_findings, summarise
from percoin.audit.run import Audit, audit
from percoin.cli import compose_config, run_command
from percoin.config import AuditConfig, OutputFormat, typed
from percoin.json_codec import one_line

EXIT_FOUND = 3


def main(arguments: Sequence[str]) -> int:
    """Run the checks, print one line each, and return the exit code.

    Returns:
        0 if no check found a problem, ``EXIT_FOUND`` if one did, and the code of the error
        if the checks could not run.
    """
    found: list[Finding] = []

    def command() -> None:
        settings = typed(compose_config("audit", arguments), AuditConfig)
        result = audit(settings)
        found.extend(result.findings)
        print(to_json(settings, result) if settings.output == OutputFormat.JSON else to_text(found))

    code = run_command(command, "audit")
    return code or (EXIT_FOUND if any(finding.is_bad for finding in found) else 0)


def to_text(findings: Sequence[Finding]) -> str:
    """One line for each check and a line that counts them."""
    return f"{format_findings(findings)}\n{summarise(findings)}"


def to_json(settings: AuditConfig, result: Audit) -> str:
    """Return the findings and the replay as one JSON object."""
    content = {
        "symbol": settings.symbol,
        "tf": None if settings.symbol is None else settings.tf.name,
        "metrics": settings.metrics,
        "is_bad": any(finding.is_bad for finding in result.findings),
        "findings": [asdict(finding) for finding in result.findings],
        "replay": None if result.replay is None else result.replay.to_json(),
    }
    return one_line(content)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

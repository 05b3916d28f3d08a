"""What every command shares: composing its config and ending with one clear line."""

from percoin.cli.compose import Composed, compose_config, config_loader
from percoin.cli.explain import explain
from percoin.cli.help import help_text
from percoin.cli.jobs import run_jobs
from percoin.cli.mistakes import refuse_bar_length_settings
from percoin.cli.run import EXIT_USAGE, PATIENCE_OF_THREADS, run_command

__all__ = [
    "EXIT_USAGE",
    "PATIENCE_OF_THREADS",
    "Composed",
    "compose_config",
    "config_loader",
    "explain",
    "help_text",
    "refuse_bar_length_settings",
    "run_command",
    "run_jobs",
]

"""Many trainings from one command: jobs run in parallel, can be resumed, and get one summary."""

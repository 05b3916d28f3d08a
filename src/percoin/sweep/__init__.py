"""Many trainings from one command: jobs side by side, each survived, resumed and summed up."""

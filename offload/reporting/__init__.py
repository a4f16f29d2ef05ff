"""What the processes tell people: logs, messages of failing commands, exit codes."""

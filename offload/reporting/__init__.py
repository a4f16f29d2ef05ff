"""What the processes tell people: logs, messages of commands that fail, exit codes."""

"""The configuration: its fields, how it is read, and which of it can change while the daemon runs."""

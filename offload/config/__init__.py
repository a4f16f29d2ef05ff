"""The configuration: its fields, how it is read, and what of it can change while the daemon runs."""

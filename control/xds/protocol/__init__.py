"""The xDS protocol as a state machine without I/O: requests and snapshots come in, responses go out."""

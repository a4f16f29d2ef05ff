"""The node daemon: holds private keys, and signs for the TLS endpoints of the node in batches."""

__version__ = "0.1.0"

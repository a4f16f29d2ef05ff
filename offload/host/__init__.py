"""What the daemon takes from this host and gives up on it: sockets, systemd, the sandbox."""

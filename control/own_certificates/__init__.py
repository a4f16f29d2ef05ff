"""The control plane's own certificates: those that its ports show, and those that it issues to its own clients."""

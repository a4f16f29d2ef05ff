"""What stands between strangers and the control plane's servers: bounds of connections, and descriptors for them."""

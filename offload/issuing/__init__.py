"""Keys that are generated on this node, and who certifies them."""

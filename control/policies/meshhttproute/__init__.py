"""The policy: where requests go: matches, filters, weighted backends."""

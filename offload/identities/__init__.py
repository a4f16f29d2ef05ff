"""Which identities are in force, from the keys directory and the configuration."""

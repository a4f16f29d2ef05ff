"""The policy: who may call; deny by default."""

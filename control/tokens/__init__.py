"""Tokens of dataplanes, nodes and administrators: JWTs, with keys that rotate and tokens that can be revoked."""

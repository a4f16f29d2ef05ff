"""The tables as they are now; migrations/versions has their history, and a test compares the two."""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData(
    naming_convention={"pk": "pk_%(table_name)s", "ix": "ix_%(table_name)s_%(column_0_N_name)s"},
)

resources = sa.Table(
    "resources",
    metadata,
    sa.Column("type", sa.String(64), primary_key=True),
    # Empty for resources that are in no mesh.
    sa.Column("mesh", sa.String(63), primary_key=True),
    sa.Column("name", sa.String(253), primary_key=True),
    sa.Column("labels", sa.JSON, nullable=False),
    sa.Column("spec", sa.JSON, nullable=False),
    # The resource's version: 1 when it was created, one more at each change.
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("created_at", sa.String(32), nullable=False),
    sa.Column("modified_at", sa.String(32), nullable=False),
    sa.Index(None, "mesh"),
)

secrets = sa.Table(
    "secrets",
    metadata,
    sa.Column("name", sa.String(512), primary_key=True),
    # 12 bytes of nonce and the AES-256-GCM ciphertext; the name is authenticated with it.
    sa.Column("sealed", sa.LargeBinary, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("modified_at", sa.String(32), nullable=False),
)

revocations = sa.Table(
    "revocations",
    metadata,
    sa.Column("jti", sa.String(64), primary_key=True),
    # Seconds since 1970; after that the token is useless anyway.
    sa.Column("expires_at", sa.BigInteger, nullable=False),
    sa.Column("reason", sa.String(512), nullable=False),
)

# Facts about the database itself: the salt of the passphrase, the check of the key, the generation; the ids of issued
# tokens and certificates (issued/<jti>); and the last restore, until a control plane has logged it.
facts = sa.Table(
    "facts",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

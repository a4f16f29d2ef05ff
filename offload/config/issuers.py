"""Settings of the issuers for keys that are generated here: those in this file, and a mesh's control plane."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from offload.config.fields import AbsolutePath, Section

MESH_ISSUER = "mesh"  # the control plane, for identities that it names


class LocalCa(Section):
    """A CA on this host, for development and tests."""

    certificate: AbsolutePath = Field(description="PEM: the CA, then its intermediates up to the root.")
    key: AbsolutePath = Field(description="PEM, not encrypted.")
    lifetime_hours: float = Field(
        default=24, ge=0.001, le=8784, description="Short: a certificate that renews itself need not be revoked."
    )


class ExecProgram(Section):
    """A program that reads a certificate request and prints a chain."""

    command: Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        description="Program (absolute path) and arguments; no shell reads them."
    )
    timeout_seconds: float = Field(default=30, ge=0.1, le=600, description="A CA on the network takes a while.")

    @model_validator(mode="after")
    def _absolute_program(self) -> Self:
        if not self.command[0].startswith("/"):
            raise ValueError(f"the program must be an absolute path, not '{self.command[0]}'")
        return self


class Issuer(Section):
    """Who certifies keys that are generated here: exactly one kind."""

    local_ca: LocalCa | None = Field(default=None, description="A CA in files on this host.")
    exec: ExecProgram | None = Field(default=None, description="A program that requests certificates from any CA.")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.local_ca is None) == (self.exec is None):
            raise ValueError("give exactly one of 'local_ca' and 'exec'")
        return self


class Mesh(Section):
    """A control plane that decides which identities this node has, whom they trust, and certifies their keys."""

    control_plane: Annotated[str, Field(pattern=r"^[^\s/:]+:[0-9]{1,5}$|^\[[0-9a-fA-F:]+\]:[0-9]{1,5}$")] = Field(
        description="host:port of its xDS address; its certificate must have the host name."
    )
    ca_file: AbsolutePath = Field(description="PEM: the CA of the control plane's certificate (its ca.pem).")
    token_file: AbsolutePath = Field(description="The node token: mesh generate node-token --name NODE.")
    proxy: Annotated[str, Field(pattern=r"^http://[^\s/@]+:[0-9]{1,5}$")] | None = Field(
        default=None, description="http://host:port of a CONNECT proxy; unset: none, and http_proxy is ignored."
    )

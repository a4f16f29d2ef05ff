"""Mistakes that people make at the commands of `offload` and `mesh`, and what is to be said to each."""

from __future__ import annotations

import pwd
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

import typer

from offload.reporting import exit_codes

OFFLOAD = [sys.executable, "-m", "offload"]
MESH = [sys.executable, "-c", "from control.cli import main; main()"]

C = exit_codes
NOBODY = pwd.getpwnam("nobody").pw_uid


@dataclass(frozen=True)
class Case:
    # {folder}: where the files below are; {public}: where others get to; {api}, {xds}: ports of the control plane;
    # {taken}: a taken port.
    line: str
    code: int
    says: str
    variables: Mapping[str, str] = field(default_factory=dict)
    as_nobody: bool = False  # needs root

    @property
    def id(self) -> str:
        return self.line.replace("{folder}/", "").replace("{public}/", "")


NO_CA = {"MESH_DATA": "{folder}/empty", "MESH_CA": ""}
MISTAKES = [
    Case("offload nonsense", C.USAGE, "No such command"),
    Case("offload serve -c {folder}/none.yaml", C.CONFIGURATION, "none.yaml: cannot be read: No such file"),
    Case("offload serve -c {folder}", C.CONFIGURATION, "cannot be read: Is a directory"),
    Case("offload serve -c {folder}/bad.yaml", C.CONFIGURATION, "bad.yaml:2: is not YAML"),
    Case("offload serve -c {folder}/unknown.yaml", C.CONFIGURATION, "unknown.yaml:1: metrik: unknown field"),
    Case("offload serve -c {folder}/taken.yaml", C.CONFIGURATION, "Address already in use"),
    Case("offload serve -c {folder}/nowhere.yaml", C.CONFIGURATION, "cannot create the folder /proc/nowhere"),
    Case("offload serve", C.CONFIGURATION, "OFFLOAD_DATA_PLANE__SHARDS", {"OFFLOAD_DATA_PLANE__SHARDS": "x"}),
    Case("offload check-config -c {folder}/none.yaml", C.CONFIGURATION, "No such file or directory"),
    Case("offload check-config -c {folder}", C.CONFIGURATION, "Is a directory"),
    Case("offload check-config -c {folder}/bad.yaml", C.CONFIGURATION, "bad.yaml:2: is not YAML"),
    Case("offload check-config -c {folder}/unknown.yaml", C.CONFIGURATION, "unknown field"),
    # With a socket of its own: the daemon of the case above may serve the configured one for a moment.
    Case(
        "offload check-config -c {folder}/taken.yaml",
        C.CONFIGURATION,
        "it will not start: metrics.address",
        {"OFFLOAD_SOCKETS__MAIN__PATH": "{folder}/tc.sock"},
    ),
    Case("offload check-config --user no-such-user", C.USAGE, "there is no user 'no-such-user'"),
    Case("offload keys list --admin-socket {folder}/none", C.UNAVAILABLE, "the socket does not exist"),
    Case("offload status --admin-socket {folder}/none", C.UNAVAILABLE, "no daemon answers on"),
    Case("offload status --admin-socket {folder}", C.UNAVAILABLE, "it is not a socket"),
    Case(
        "offload status --admin-socket {folder}/nobody.sock",
        C.UNAVAILABLE,
        "the socket exists, but nothing listens on it",
    ),
    Case(
        "offload status --admin-socket {public}/closed.sock",
        C.UNAVAILABLE,
        "you are not permitted to connect; user 'root' and members of group 'daemon' may do that; become one of them",
        as_nobody=True,
    ),
    Case(
        "offload sign -i www --socket {public}/locked/a.sock --input /dev/null",
        C.UNAVAILABLE,
        "you have no access to the folder {public}/locked; user 'root' may do that; become one of them",
        as_nobody=True,
    ),
    Case("offload status --interval fast", C.USAGE, "'--interval'"),
    Case("offload status --watch --interval 0", C.USAGE, "'--interval'"),
    Case("offload reload --admin-socket {folder}/none", C.UNAVAILABLE, "no daemon answers on"),
    Case("offload drain --admin-socket {folder}/none", C.UNAVAILABLE, "no daemon answers on"),
    Case("offload log-level loud", C.USAGE, "'loud' is not one of"),
    Case("offload log-level info --admin-socket {folder}/none", C.UNAVAILABLE, "no daemon answers on"),
    Case("offload sign -i www --socket {folder}/x --input {folder}/binary", C.UNAVAILABLE, "no daemon answers on"),
    Case("offload sign -i www --input {folder}/none", C.USAGE, "none cannot be read: No such file"),
    Case("offload sign -i www --input {folder}", C.USAGE, "cannot be read: Is a directory"),
    Case("offload sign", C.USAGE, "give either --identity or --key-id"),
    Case("offload envoy-config", C.USAGE, "Missing option '--identity'"),
    Case("offload envoy-config -i www --upstream localhost", C.USAGE, "--upstream must be a host and a port"),
    Case("offload envoy-config -i www --listen here", C.USAGE, "--listen must be an IP address and a port"),
    Case("offload envoy-config -i www --connect-to a:1", C.USAGE, "name the accepted servers"),
    Case("offload bench --rounds 0", C.USAGE, "'--rounds'"),
    Case("offload bench --algorithm md5", C.USAGE, "'md5' is not one of"),
    Case("mesh nonsense", C.USAGE, "No such command"),
    Case("mesh apply -f {folder}/none.yaml", C.FAILED, "none.yaml: no such file or folder"),
    Case("mesh apply -f {folder}", C.FAILED, "it is a folder; a file is expected"),
    Case("mesh apply -f {folder}/bad.yaml", C.FAILED, "bad.yaml"),
    Case("mesh validate -f {folder}/unknown.yaml", C.FAILED, "type"),
    Case("mesh validate -f {folder}/binary", C.FAILED, "binary"),
    Case("mesh get meshes", C.MESH_UNREACHABLE, "copy ca.pem of its data folder here and set MESH_CA", NO_CA),
    Case("mesh get meshes", C.MESH_UNREACHABLE, "contains no certificates", {"MESH_CA": "{folder}/bad.yaml"}),
    Case("mesh get meshes", C.MESH_UNREACHABLE, "does not answer", {"MESH_CA": "{folder}/other-ca.pem"}),
    Case("mesh get meshes", C.MESH_UNREACHABLE, "does not answer", {"MESH_API": "https://127.0.0.1:{closed}"}),
    Case("mesh get meshes", C.MESH_UNREACHABLE, "does not answer", {"MESH_API": "garbage"}),
    Case("mesh get meshes", C.MESH_UNREACHABLE, "cannot be read from", {"MESH_TOKEN_FILE": "{folder}/none"}),
    Case("mesh get meshes", C.FAILED, "token", {"MESH_TOKEN": "nonsense"}),
    Case("mesh get nonsense", C.USAGE, "there are no nonsense; there are"),
    Case("mesh get dp -m nope", C.FAILED, "there is no Mesh 'nope'"),
    Case("mesh get dp nope", C.FAILED, "nope"),
    Case("mesh delete dp nope", C.FAILED, "nope"),
    Case("mesh inspect overview nope", C.FAILED, "there is no Dataplane 'nope'"),
    Case("mesh inspect waiting -m nope", C.FAILED, "there is no Mesh 'nope'"),
    Case("mesh ca rotate identity sideways", C.USAGE, "'sideways' is not one of"),
    Case("mesh ca status nope", C.FAILED, "nope"),
    Case("mesh generate dataplane-token --label x", C.USAGE, "'x' is not key=value"),
    Case("mesh generate dataplane-token -m nope --name a", C.FAILED, "nope"),
    Case("mesh generate node-token --name a --valid-for soon", C.FAILED, "validFor"),
    Case("mesh revoke", C.USAGE, "Missing argument"),
    Case("mesh revoke blah", C.FAILED, "'blah' is neither a token nor the id of one"),
    Case("mesh generate node-token", C.USAGE, "Missing option '--name'"),
    Case("mesh restore {folder}/none --replace --data {folder}/empty", C.FAILED, "there is no backup at"),
    Case("mesh serve --api nowhere:x", C.USAGE, "use host:port"),
    Case("mesh serve --zone BAD", C.USAGE, "--zone"),
    Case("mesh serve --data {folder}/bad.yaml/x", C.CONFIGURATION, "a part of its path is a file"),
    Case(
        "mesh serve --data {folder}/new --api 127.0.0.1:{api} --xds 127.0.0.1:0 --nodes 127.0.0.1:0",
        C.CONFIGURATION,
        "the API cannot be served at 127.0.0.1:{api}: Address already in use",
    ),
    Case(
        "mesh serve --data {folder}/new2 --api 127.0.0.1:0 --xds 127.0.0.1:{xds} --nodes 127.0.0.1:0",
        C.CONFIGURATION,
        "xDS cannot be served at 127.0.0.1:{xds}: Address already in use",
    ),
    Case(
        "mesh serve --data {folder}/new3 --api 127.0.0.1:0 --xds 127.0.0.1:0 --nodes 127.0.0.1:{taken}",
        C.CONFIGURATION,
        "nodes cannot be served at 127.0.0.1:{taken}: Address already in use",
    ),
    Case("mesh backup {folder}/bad.yaml", C.FAILED, "bad.yaml"),
    Case("mesh restore {folder}/none --data {folder}/empty", C.FAILED, "none"),
    Case(
        "mesh dataplane bootstrap --name a --token-file {folder}/none --ca-file {ca}",
        C.FAILED,
        "none: no such file",
    ),
    Case(
        "mesh dataplane run --name a --token-file {folder}/none --ca-file {ca} --envoy true", C.FAILED, "no such file"
    ),
    Case(
        "mesh dataplane run --name a --token-file {folder}/empty-file --ca-file {ca} --envoy true",
        C.USAGE,
        "there is no token in",
    ),
    Case(
        "mesh dataplane run --name a --token-file {token} --ca-file {ca} --envoy /none",
        C.CONFIGURATION,
        "there is no Envoy",
    ),
]

RUN = "mesh dataplane run --name a --envoy true --token-file {token} --runtime-folder {folder}/run "
MISTAKES += [
    Case(
        RUN + "--ca-file {folder}/other-ca.pem --control-plane 127.0.0.1:{xds}",
        C.MESH_UNREACHABLE,
        "not issued by this CA",
    ),
    Case(
        RUN + "--ca-file {folder}/bad.yaml --control-plane 127.0.0.1:{xds}", C.MESH_UNREACHABLE, "holds no certificates"
    ),
    Case(RUN + "--ca-file {ca} --control-plane 127.0.0.1:{api}", C.MESH_UNREACHABLE, "is not an xDS port"),
    Case(RUN + "--ca-file {ca} --control-plane 127.0.0.1:{taken}", C.OK, "nothing answers at"),
    Case(RUN + "--ca-file {ca} --control-plane 127.0.0.1:{closed}", C.OK, "connection refused"),
    Case(
        RUN + "--ca-file {ca} --control-plane nowhere.invalid:{xds}", C.OK, "there is no host named 'nowhere.invalid'"
    ),
    Case(RUN + "--ca-file {ca} --control-plane 127.0.0.2:{xds}", C.MESH_UNREACHABLE, "no certificate for '127.0.0.2'"),
    Case(
        RUN + "--ca-file {ca} --control-plane 127.0.0.1:{xds}", C.FAILED, "there is no Dataplane 'a' in mesh 'default'"
    ),
    Case(RUN + "--ca-file {ca} --control-plane here:x", C.USAGE, "use host:port"),
    Case(
        RUN.replace("{folder}/run", "{folder}/" + "r" * 90) + "--ca-file {ca} --control-plane 127.0.0.1:{closed}",
        C.CONFIGURATION,
        "choose a shorter --runtime-folder",
    ),
    Case(
        "mesh dataplane bootstrap --name a --token-file {token} --ca-file {ca} --admin-port 1 --admin-socket x",
        C.USAGE,
        "are mutually exclusive",
    ),
    Case(RUN + "--ca-file {ca} --admin-port 0", C.USAGE, "'--admin-port'"),
]


def commands(app: typer.Typer) -> list[str]:
    """Every command of an app, groups before their members."""
    found = [one.name or one.callback.__name__.replace("_", "-") for one in app.registered_commands if one.callback]
    for group in app.registered_groups:
        assert group.typer_instance is not None
        found += [f"{group.name} {one}" for one in commands(group.typer_instance)]
    return found

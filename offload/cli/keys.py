"""`offload keys`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import typer

from offload.cli.output import CALL_SECONDS, DEFAULT_ADMIN, AdminPath, Format, Output, admin, out, plain, print_json
from offload.identities.schemes import BY_CODE
from offload.v1 import admin_pb2

app = typer.Typer(no_args_is_help=True, help="The keys in force.", rich_markup_mode="markdown")


CALLERS_SHOWN = 5  # in the table; -o json has all


@app.callback()
def _keys() -> None:
    """The keys in force."""


@app.command("list")
def list_keys(admin_socket: AdminPath = DEFAULT_ADMIN, output: Output = Format.table) -> None:
    """Show the identities in force, their keys and who may use them, and every rejected file.

    Example: `offload keys list -o json | jq '.identities[].keys[].key_id'`
    """
    with admin(admin_socket) as stub:
        answer = stub.ListKeys(admin_pb2.ListKeysRequest(), timeout=CALL_SECONDS)
    if output is Format.json:
        print_json({"identities": identities_as_json(answer.identities), "problems": problems_as_json(answer.problems)})
        return
    print_identities(answer.identities, with_use=True)
    print_problems(answer.problems)


def print_identities(identities: Sequence[admin_pb2.IdentityInForce], with_use: bool = False) -> None:
    """One paragraph each: a key's id has 64 digits, and in a table it would be wrapped over many lines.

    `with_use`: for a running daemon, which has counted uses.
    """
    if not identities:
        out.print("no identity is in force")
    for identity in identities:
        usage = identity.usage + (", decrypt" if identity.decrypt else "")
        _line(f"[bold]{plain(identity.name)}[/]  {usage}")
        _line(f"  used by  {plain('; or '.join(identity.selectors)) or '[red]nobody: no selector names anybody[/]'}")
        for key in identity.keys:
            names = ", ".join([*key.dns_names, *key.uris]) or key.subject
            _line(f"  {key.algorithm:<8} {_expiry(key)}  {plain(names)}")
            _line(f"           {key.key_id.hex()}")
        if with_use:
            said = done_in_words(identity.use) + callers_in_words(identity.use)
            _line(f"  used     {plain(', '.join(said) or 'not yet')}")


def done_in_words(use: admin_pb2.IdentityUse) -> list[str]:
    """The operations by backend, or the reason why they failed."""
    return [
        f"{one.count} {'on ' + one.backend if one.status == 'OK' else one.status}"
        for one in sorted(use.operations, key=lambda one: -one.count)
    ]


def callers_in_words(use: admin_pb2.IdentityUse) -> list[str]:
    lines = [f"{one.count} for uid {one.uid} {one.executable}".rstrip() for one in use.callers[:CALLERS_SHOWN]]
    others = use.operations_of_others + sum(one.count for one in use.callers[CALLERS_SHOWN:])
    return [*lines, f"{others} for others"] if others else lines


def use_as_json(use: admin_pb2.IdentityUse) -> dict[str, Any]:
    return {
        "operations": [{"status": o.status, "backend": o.backend, "count": o.count} for o in use.operations],
        "callers": [
            {"uid": c.uid, "executable": c.executable, "count": c.count, "last_seconds": c.last_seconds}
            for c in use.callers
        ],
        "operations_of_others": use.operations_of_others,
    }


def print_problems(problems: Sequence[admin_pb2.Problem]) -> None:
    if problems:
        _line("[bold red]Refused[/]")
    for problem in problems:
        kept = "; the previous one stays in force" if problem.previous_kept else ""
        _line(f"  {plain(problem.path)}  (identity {plain(problem.identity)})")
        _line(f"           {plain(problem.reason)}{kept}")


def _line(text: str) -> None:
    """Prints one line whatever its length: wrapped text can be neither searched for nor copied."""
    out.print(text, soft_wrap=True, highlight=False)


def identities_as_json(identities: Sequence[admin_pb2.IdentityInForce]) -> list[dict[str, Any]]:
    return [
        {
            "name": identity.name,
            "version": identity.version,
            "usage": identity.usage,
            "decrypt": identity.decrypt,
            "selectors": list(identity.selectors),
            "trust_bundles": list(identity.trust_bundles),
            "keys": [_key_as_json(key) for key in identity.keys],
            "use": use_as_json(identity.use),
        }
        for identity in identities
    ]


def problems_as_json(problems: Sequence[admin_pb2.Problem]) -> list[dict[str, Any]]:
    return [
        {"identity": p.identity, "path": p.path, "reason": p.reason, "previous_kept": p.previous_kept} for p in problems
    ]


def _key_as_json(key: admin_pb2.KeyInForce) -> dict[str, Any]:
    return {
        "key_id": key.key_id.hex(),
        "algorithm": key.algorithm,
        "key_file": key.key_file,
        "certificate_file": key.certificate_file,
        "subject": key.subject,
        "dns_names": list(key.dns_names),
        "uris": list(key.uris),
        "serial_number": key.serial_number,
        "not_before": key.not_before,
        "not_after": key.not_after,
        "chain_not_after": key.chain_not_after,
        "chain_length": key.chain_length,
        "signature_schemes": [BY_CODE[code].name for code in key.signature_schemes],
        "kept": key.kept,
        "renew_at": key.renew_at,
    }


def _expiry(key: admin_pb2.KeyInForce) -> str:
    seconds = key.chain_not_after - time.time()
    if key.renew_at:
        renewal = time.strftime("%Y-%m-%d %H:%M", time.gmtime(key.renew_at))
        colour = "green" if key.renew_at > time.time() else "yellow"
        return f"[{colour}]in {_duration(seconds)}, renewal {renewal}Z[/]" if seconds > 0 else "[red]expired[/]"
    days = seconds / 86400
    day = time.strftime("%Y-%m-%d", time.gmtime(key.chain_not_after))
    if days < 0:
        return f"[red]{day} (expired)[/]"
    colour = "yellow" if days < 7 else "green"
    return f"[{colour}]{day} ({days:.0f} days)[/]" + (" [yellow]file broken[/]" if key.kept else "")


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"

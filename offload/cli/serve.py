"""`offload serve` and `offload check-config`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from offload.cli.output import Format, Output, err, fail, out, plain, print_json
from offload.reporting import exit_codes

if TYPE_CHECKING:  # commands import what is heavy when they run: --help and the others should not wait for it
    from offload.config.settings import Config
    from offload.filesystem.trusted_paths import Trust

DEFAULT_CONFIG = Path("/etc/offload/offload.yaml")

ConfigPath = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        envvar="OFFLOAD_CONFIG",
        help=f"Configuration file. Unset: {DEFAULT_CONFIG} if it exists, else the defaults.",
    ),
]


def serve(
    config: ConfigPath = None,
    take_over: Annotated[
        bool,
        typer.Option(
            "--take-over",
            help="Take over the listening sockets of the running daemon, if any, and drain it once this one is "
            "ready: an upgrade that loses no handshake. If this daemon cannot start, the running one continues.",
        ),
    ] = False,
) -> None:
    """Run the daemon until SIGTERM or SIGINT; then it drains. SIGHUP reloads configuration and keys.

    Example: `offload serve --config /etc/offload/offload.yaml`

    Upgrade: `offload serve --config /etc/offload/offload.yaml --take-over`

    Any setting can be overridden: `OFFLOAD_DATA_PLANE__SHARDS=4 offload serve`. Logs go to standard error.
    """
    from offload.config.file import load_config
    from offload.daemon.lifecycle import Daemon, StartError
    from offload.reporting import logs

    def load() -> Config:
        return load_config(_chosen(config), os.environ)

    settings = _load_or_fail(config)
    logs.configure(settings.logging.level, settings.logging.format)
    try:
        code = Daemon(settings, load, os.environ, take_over).run()
    except StartError as error:
        logs.get_logger().error("cannot start", reason=str(error))
        raise typer.Exit(exit_codes.CONFIGURATION) from None
    raise typer.Exit(code)


def check_config(
    config: ConfigPath = None,
    output: Output = Format.table,
    user: Annotated[
        str | None,
        typer.Option(
            "--user", help="As root: check as this user, which the daemon will run as. Unset: the current user."
        ),
    ] = None,
    show_reference: Annotated[
        bool, typer.Option("--reference", help="Print every setting with its default and the reason for it.")
    ] = False,
) -> None:
    """Check the configuration, the key files, and what the daemon will need of this host, without starting anything.

    Example: `offload check-config -c /etc/offload/offload.yaml`

    As the user of the systemd unit: `sudo offload check-config --user offload`

    Exit code 78: the daemon would not start; the configuration is rejected, or a folder, a port or memory is missing.
    1: it would, but some key file is rejected, or somebody whom a selector names could not connect. 0: all good.
    """
    if show_reference:
        from offload.config.settings_table import settings_table

        typer.echo(settings_table(), nl=False)
        return
    from offload import _dataplane
    from offload.cli.keys import identities_as_json, print_identities, print_problems, problems_as_json
    from offload.host import preflight
    from offload.host.listeners import untrusted_folders
    from offload.identities.directory import KeysDirectory
    from offload.identities.in_force import Plan
    from offload.identities.keyring import look
    from offload.identities.plan import plan as planned
    from offload.identities.warnings import warnings_of
    from offload.interfaces.admin import identity_message, problem_message

    if user is not None:
        _become(user)  # after the imports: the user may have no access to the folder where offload is installed
    settings = _load_or_fail(config)
    _dataplane.harden_process()
    trust = _trust_to_check_with(settings)
    for reason in (refusals := untrusted_folders(settings, trust)):
        err.print(f"[bold red]error:[/] {plain(reason)}")
    if refusals:
        fail("the daemon would not start with these folders", exit_codes.CONFIGURATION)
    inputs = look(KeysDirectory(settings.keys.directory, trust), settings, Plan())
    plan = planned(inputs)
    warnings = warnings_of(plan, inputs)
    algorithms = [pair.key.algorithm for identity in plan.identities.values() for pair in identity.pairs]
    findings = preflight.examine(settings, algorithms)
    identities = [identity_message(identity) for identity in plan.identities.values()]
    problems = [problem_message(problem) for problem in plan.problems]
    if output is Format.json:
        print_json(
            {
                "config": settings.model_dump(mode="json"),
                "identities": identities_as_json(identities),
                "problems": problems_as_json(problems),
                "warnings": [{"identity": w.identity, "text": w.text} for w in warnings],
                "host": [{"where": f.where, "text": f.text, "fatal": f.fatal} for f in findings],
            }
        )
    else:
        out.print(f"configuration: valid ({_chosen(config) or 'defaults'})", soft_wrap=True)
        print_identities(identities)
        for warning in warnings:
            err.print(f"[yellow]note:[/] identity '{plain(warning.identity)}' {plain(warning.text)}")
        print_problems(problems)
        for finding in findings:
            word = "[bold red]it will not start:[/]" if finding.fatal else "[bold yellow]will not work:[/]"
            err.print(f"{word} {plain(finding.where)}: {plain(finding.text)}")
    if any(finding.fatal for finding in findings):
        raise typer.Exit(exit_codes.CONFIGURATION)
    raise typer.Exit(exit_codes.FAILED if problems or findings else exit_codes.OK)


def _become(user: str) -> None:
    """Switches to the user, so that trying shows what the user may read and open."""
    from offload.filesystem.accounts import name_of_user
    from offload.host.sandbox import become

    try:
        become(user)
    except KeyError:
        fail(f"there is no user '{user}' on this host", exit_codes.USAGE)
    except PermissionError:
        name = name_of_user(os.geteuid())
        fail(f"only root can check as another user, and you are {name}: use sudo, or omit --user", exit_codes.USAGE)


def _trust_to_check_with(settings: Config) -> Trust:
    """Our own; or, for root, that of the daemon's user, as whom a service manager will start it."""
    from offload.filesystem.trusted_paths import Trust

    trust = settings.security.trust()
    if os.geteuid() != 0 or settings.admin is None:
        return trust
    folder = settings.admin.path.parent
    try:
        owner = folder.stat().st_uid
    except OSError:
        return trust
    if owner in trust.users:
        return trust
    err.print(
        f"[yellow]note:[/] checked as for a daemon that runs as uid {owner}, to whom {plain(str(folder))} belongs "
        "(User= in its unit); one that runs as root would refuse that folder"
    )
    return Trust(trust.users | {owner}, trust.own | {owner})


def _chosen(config: Path | None) -> Path | None:
    if config is not None:
        return config
    return DEFAULT_CONFIG if DEFAULT_CONFIG.exists() else None


def _load_or_fail(config: Path | None) -> Config:
    from offload.config.file import ConfigError, load_config

    try:
        return load_config(_chosen(config), os.environ)
    except ConfigError as error:
        for problem in error.problems:
            err.print(f"[bold red]error:[/] {plain(str(problem))}")
        fail(f"the configuration is rejected ({len(error.problems)} problems)", exit_codes.CONFIGURATION)

"""The command `offload`: runs the daemon and looks into it."""

from __future__ import annotations

import typer

from offload import __version__
from offload.cli import bench, envoy_config, keys, serve, sign, status, steer
from offload.cli.output import complain
from offload.reporting import failure

app = typer.Typer(
    name="offload",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,  # `failure` prints a sentence instead
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    help=(
        "Holds the private keys of a node and signs TLS handshakes for its Envoys, up to 8 at a time.\n\n"
        "Start with `offload check-config`, then `offload serve`; inspect it with `offload status`.\n\n"
        "Exit codes: 0 success; 1 failure; 2 invalid options; 3 stopped with operations unanswered; "
        "69 the daemon does not answer; 70 internal error; 77 the daemon denies permission; "
        "78 invalid configuration or unsuitable host; 130 interrupted by Ctrl-C."
    ),
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"offload {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    del version


app.command("serve")(serve.serve)
app.command("check-config")(serve.check_config)
app.add_typer(keys.app, name="keys")
app.command("sign")(sign.sign)
app.command("status")(status.status)
app.command("reload")(steer.reload)
app.command("drain")(steer.drain)
app.command("log-level")(steer.log_level)
app.command("envoy-config")(envoy_config.envoy_config)
app.command("bench")(bench.bench)


def main() -> None:
    failure.ended(lambda: app(prog_name="offload"), complain, {})

"""`codedeploy-control serve`."""

from __future__ import annotations

from pathlib import Path

import click

from controlplane import server
from controlplane.cli.options import data_option
from controlplane.logs import LogFormat, configure_logging
from controlplane.settings import (
    COMMAND_TIMEOUT_S,
    DEFAULT_LISTEN,
    HOST_UNSEEN_AFTER_S,
    POLL_HOLD_S,
    REDELIVER_AFTER_S,
    Settings,
    Timing,
)

_SECONDS = click.FloatRange(min=0.05, max=86400 * 7)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@data_option
@click.option(
    "--listen", default=DEFAULT_LISTEN, show_default=True, metavar="HOST:PORT", help="Port 0: any free one."
)
@click.option("--tls-certificate", type=_FILE, help="Certificate chain (PEM); serves HTTPS.")
@click.option("--tls-key", type=_FILE, help="Private key of the certificate (PEM).")
@click.option("--region", help="Region in ARNs, fixed at the first start.  [default: us-east-1]")
@click.option(
    "--account", help="Account in ARNs, 12 digits, fixed at the first start.  [default: 000000000000]"
)
@click.option(
    "--poll-hold",
    type=_SECONDS,
    default=POLL_HOLD_S,
    show_default=True,
    metavar="SECONDS",
    help="How long an empty poll is held open.",
)
@click.option(
    "--redeliver-after",
    type=_SECONDS,
    default=REDELIVER_AFTER_S,
    show_default=True,
    metavar="SECONDS",
    help="Deliver a command again when it is not acknowledged for this long.",
)
@click.option(
    "--command-timeout",
    type=_SECONDS,
    default=COMMAND_TIMEOUT_S,
    show_default=True,
    metavar="SECONDS",
    help="Fail a command of which the host says nothing for this long.",
)
@click.option(
    "--host-unseen-after",
    type=_SECONDS,
    default=HOST_UNSEEN_AFTER_S,
    show_default=True,
    metavar="SECONDS",
    help="Fail a command when its host does not poll for this long.",
)
@click.option(
    "--log-format",
    type=click.Choice([choice.value for choice in LogFormat]),
    default="auto",
    show_default=True,
    help="Log lines on stderr.",
)
@click.option("--verbose", is_flag=True, help="Log idle polls too.")
def serve(
    *,
    data_directory: Path,
    listen: str,
    tls_certificate: Path | None,
    tls_key: Path | None,
    region: str | None,
    account: str | None,
    poll_hold: float,
    redeliver_after: float,
    command_timeout: float,
    host_unseen_after: float,
    log_format: str,
    verbose: bool,
) -> None:
    """Serve hosts and the public API on one port, until SIGTERM.

    Prints `listening on URL` on stdout once it is ready. All state is in the data directory; a killed
    endpoint goes on where it was when it is started again.

    \b
    Examples:
      codedeploy-control serve --data ./control --listen 127.0.0.1:8462
      codedeploy-control serve --listen 0.0.0.0:443 --tls-certificate cert.pem --tls-key key.pem

    \b
    Exit codes: 0 stopped on request, 1 can't start (the reason is on stderr), 2 wrong usage.
    """  # noqa: D301 - click wants the backspace itself
    if (tls_certificate is None) != (tls_key is None):
        raise click.UsageError("--tls-certificate and --tls-key go together.")
    if account is not None and (len(account) != 12 or not account.isdigit()):
        raise click.BadParameter("it has 12 digits.", param_hint="--account")
    host, port = _parse_listen(listen)
    configure_logging(log_format=LogFormat(log_format), verbose=verbose)
    timing = Timing(
        poll_hold_s=poll_hold,
        redeliver_after_s=redeliver_after,
        command_timeout_s=command_timeout,
        host_unseen_after_s=host_unseen_after,
    )
    server.serve(
        Settings(
            data_directory=data_directory,
            host=host,
            port=port,
            region=region,
            account=account,
            tls_certificate=tls_certificate,
            tls_key=tls_key,
            timing=timing,
        )
    )


def _parse_listen(listen: str) -> tuple[str, int]:
    host, separator, port = listen.rpartition(":")
    if not separator or not port.isdigit() or int(port) > 65535:
        raise click.BadParameter(f"{listen!r} is not HOST:PORT.", param_hint="--listen")
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - an empty host asks for all interfaces

"""`exeunt sign-in`: keep a token and the portal's address, and tell the client that runs."""

import getpass
import sys
from typing import Annotated
from urllib.parse import urlsplit

from cyclopts import Parameter

from .. import config
from ..contract import SignIn
from ..instances import connect, program_of, running
from ..output import DEFAULTS, Options, emit, fail, talk
from ..paths import Paths, current
from ..secrets import VARIABLE, given_token, store_token


def run(
    *,
    portal: str | None = None,
    token_file: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    options: Options = DEFAULTS,
) -> None:
    """Store a token, and connect with it.

    The token is read from --token-file, else from EXEUNT_TOKEN, else asked for. It is never an argument,
    which every user of the machine could read.

    Args:
        portal: The portal's address, ws://HOST:PORT or wss://HOST. Kept for the next time.
        token_file: Read the token from this file; - is standard input.
        options: The options that every command takes.
    """
    paths = current()
    url = _portal_url(portal or config.load(config.ClientConfig, "client", paths=paths, options=options).portal_url)
    token = given_token(token_file=token_file) or _ask()
    stored = store_token(paths, token)
    config.store(options.config or paths.config_file, "client", "portal_url", url)
    told = _tell(paths, options, url)
    signed_in = SignIn(portal_url=url, token_file=str(stored), instances=told)
    emit("exeunt.sign-in/1", signed_in, options=options, human=lambda: f"Signed in at {url}.")
    if not told:
        talk(options, "No client runs here. Start it with: exeunt client run")


def _portal_url(url: str | None) -> str:
    if url is None:
        fail("usage", "Which portal?", "exeunt sign-in --portal wss://HOST says it; it is kept for the next time.")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"ws", "wss", "http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        fail("usage", f"{url} is not a portal's address.", "It looks like wss://portal.example.com.")
    return url


def _ask() -> str:
    if not sys.stdin.isatty():
        fail("usage", "No token was given.", f"Use --token-file FILE, or set {VARIABLE}.")
    return given_token(environ={VARIABLE: getpass.getpass("Token: ", stream=sys.stderr)}) or fail(
        "usage", "No token was given."
    )


def _tell(paths: Paths, options: Options, url: str) -> list[str]:
    told: list[str] = []
    for instance in running(paths):
        meant = options.instance in {None, instance.name}
        if meant and program_of(instance, options) == "client":
            with connect(instance, options) as program:
                program.order("sign_in", {"portal_url": url})
            told.append(instance.name)
    return told

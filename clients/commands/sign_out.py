"""`exeunt sign-out`: the client says goodbye and leaves; then its token is forgotten."""

from typing import Annotated

from cyclopts import Parameter

from ..contract import Departure, SignOut
from ..departure import exit_code, leave, sentence
from ..instances import pick
from ..output import DEFAULTS, ExitCode, Failure, Options, emit
from ..paths import Paths, current
from ..secrets import forget_token


def run(
    *,
    strict: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    options: Options = DEFAULTS,
) -> int:
    """Disconnect, and forget the token. Also when nothing runs.

    Args:
        strict: Exit with 8 if some goodbyes were not acknowledged.
        options: The options that every command takes.
    """
    paths = current()
    departure = _leave(paths, options)
    signed_out = SignOut(departures=[] if departure is None else [departure], token_removed=forget_token(paths))
    emit("exeunt.sign-out/1", signed_out, options=options, human=lambda: _sentence(signed_out))
    return ExitCode.OK if departure is None else exit_code(departure, strict=strict)


def _leave(paths: Paths, options: Options) -> Departure | None:
    try:
        instance = pick(paths, options, program="client")
    except Failure as failure:
        if failure.error.code != "not_running":
            raise
        return None
    return leave(paths, instance, options, reason="signed_out")


def _sentence(signed_out: SignOut) -> str:
    sentences = ["Signed out." if signed_out.token_removed else "Signed out; there was no token to forget."]
    return " ".join([*sentences, *map(sentence, signed_out.departures)])

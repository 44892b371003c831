"""The exit codes of all commands, with the words that help and pages have for them."""

from alloop.core.errors import AlloopError, Interrupted

DONE = 0
FRUITLESS = 1
MISTAKE = AlloopError.exit_code
RESUMABLE = Interrupted.exit_code
DAMAGED = 4

MEANINGS = {
    DONE: "done",
    FRUITLESS: "nothing to show (`md`: all walkers stopped early)",
    MISTAKE: "a mistake of the user's, in one sentence",
    RESUMABLE: "stopped early, the same command continues",
    DAMAGED: "a damaged store (`doctor`)",
}


def exit_codes_text() -> str:
    """Return one line with every exit code and its meaning."""
    codes = [f"{code} {meaning}" for code, meaning in sorted(MEANINGS.items())]
    return f"Exit codes: {'; '.join(codes)}."

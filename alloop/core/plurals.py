"""Counts in words."""


def plural(count: int, noun: str) -> str:
    """Return a count with its noun: `1 label`, `2 labels`, `2 pieces of MD`."""
    if count == 1:
        return f"1 {noun}"
    head, of, tail = noun.partition(" of ")
    return f"{count} {head}s{of}{tail}"

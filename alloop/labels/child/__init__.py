"""The child process that makes labels: start, messages, limits, end."""

"""Reports for the terminal and the log file."""

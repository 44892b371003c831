"""Displays and reports of a campaign: live display, tables, HTML report."""

"""What a campaign shows of itself: live display, tables, stories, the HTML report."""

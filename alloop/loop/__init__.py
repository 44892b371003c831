"""The decisions of a campaign: pure functions over frozen facts."""

"""One run of a campaign: opens store and cluster, and drives the loop."""

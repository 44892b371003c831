"""The predicted cost of a campaign: labels, training, MD and storage."""

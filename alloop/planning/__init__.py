"""What a campaign will cost: labels, training, MD and storage, before it runs."""

"""What helps on frames unlike the training set."""

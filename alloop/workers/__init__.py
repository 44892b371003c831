"""Commands carried out on workers, and the clusters that the workers belong to."""

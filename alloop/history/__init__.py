"""The reading side of a store: the journal folded, indexed and searched."""

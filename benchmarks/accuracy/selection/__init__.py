"""Whether labels are chosen and money is split better than by chance."""

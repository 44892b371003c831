"""New stores made from existing ones: forks, controls and repairs."""

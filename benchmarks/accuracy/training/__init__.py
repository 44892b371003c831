"""What trainings err, and what averaging, presets and a warm start change."""

"""Facts for reports, computed from the journal."""

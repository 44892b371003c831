"""Labels, training and MD without a campaign: `alloop label`, `train` and `md`."""

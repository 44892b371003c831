"""Which frames MD should propose, and what fine-tuning along it gives."""

"""The field's nouns on plain numpy: no I/O, no clock, no logging."""

"""The journal, the columns, and what reads them."""

"""The store of a campaign: journal, columns, models, and the code that reads them."""

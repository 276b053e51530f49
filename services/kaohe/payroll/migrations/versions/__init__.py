"""The steps of the ledger's schema, oldest first. A released step is never edited: a change is a new step."""

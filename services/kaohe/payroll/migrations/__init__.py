"""Alembic's environment of the ledger. Run by ``kaohe.payroll.ledger.upgrade``, never by hand."""

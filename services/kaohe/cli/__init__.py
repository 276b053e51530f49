"""The ``kaohe`` command."""

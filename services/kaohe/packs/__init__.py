"""Rule packs: load, check, compile, test and trace."""

"""The pure core: ``(state, event, packs) -> (state, outputs)``, without I/O, clock or randomness."""

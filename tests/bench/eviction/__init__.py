"""How long users wait under each choice of victim, on traces replayed by the real scheduler."""

"""Studies: what the rules of a station do on average, by seeded simulation."""

"""The factory database: eUICC data, packages, who has which package, what became of it, and every event taken."""

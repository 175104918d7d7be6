"""Factory Profile Assistant: provision one eUICC over one card port. Knows nothing of the line."""

"""One station's work: heads in parallel, a journal with an outbox, the pump that empties it."""

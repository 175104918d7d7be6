"""The HTTP face of the factory profile store."""

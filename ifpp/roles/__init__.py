"""Composition roots: settings in, running process out. The demo is one of them."""

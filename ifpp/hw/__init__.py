"""Hardware: card ports behind one narrow protocol, each on its own owner thread."""

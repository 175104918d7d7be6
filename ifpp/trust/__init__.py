"""Who signed what: certificate chains, signatures over received bytes, and the numbered verification plans."""

"""HTTP: what Tornado asks, and nothing that it need not know."""

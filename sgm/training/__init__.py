"""Training of the small bundled models, on data rendered here."""

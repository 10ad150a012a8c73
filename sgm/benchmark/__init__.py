"""How fast and how lean the models are: `python -m sgm.benchmark`."""

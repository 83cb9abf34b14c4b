"""A pruning run's work dir: whose it is, its manifest and tables, and exports of them."""

"""The work dir of a pruning run: whose it is, its manifest and tables, and what is exported from them."""

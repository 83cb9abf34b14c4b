"""What every room may use: errors, files, progress, checks of values, words."""

"""Writing annotation files that hold only some of the samples; everything else in them stays as it was."""

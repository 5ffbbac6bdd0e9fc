"""The pure core: the run's table, the fold and the policies. No clock, no I/O."""

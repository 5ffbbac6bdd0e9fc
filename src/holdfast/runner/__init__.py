"""Runs and those who read them: execution, recovery, routing, supervision."""

"""The surfaces: for each dialect its routes, and the shapes of their bodies."""

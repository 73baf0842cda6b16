"""Diagnostics: convergence in function space, calibration, and neutral measures of a match."""

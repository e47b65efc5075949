"""Predictions inside Ray Data and Spark; each module imports its system, which nothing else does."""

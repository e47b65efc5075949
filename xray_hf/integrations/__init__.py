"""Predictions inside the systems that clusters run; each module needs its own, which nothing else imports."""

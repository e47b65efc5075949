"""A bundle's numbers -> tables, sentences and figures, for the page, Markdown and the terminal."""

"""The page's tabs, one module each: NAME in the address, TITLE, and `add`, which puts it on the page."""

"""The report of a loop: a page with charts and tables."""

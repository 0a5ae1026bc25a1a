"""The six samples on one page.  ``python -m samples.demo`` starts it."""

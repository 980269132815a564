"""The administrator's pages in a real browser."""

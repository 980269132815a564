"""The admin API over HTTP: one module for each subject, each with its routes."""

"""Every configuration key: type, bounds, default and meaning; a file for each part of the service."""

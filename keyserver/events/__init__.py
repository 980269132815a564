"""What others are told of what changed: by webhook, and by the feed of the admin API."""

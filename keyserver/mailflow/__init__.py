"""Mail flow: what inbound mail proves about its sender's certificates. Mail is never changed, delayed or lost."""

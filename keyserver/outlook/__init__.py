"""What is going to fail: certificates in use that end, recipients lost, partners, upstreams, revocation lists."""

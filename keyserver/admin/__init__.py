"""What an administrator does with the cache: the operations once, and the API over them."""

"""One file a collection: how to read its folder, and its museum label."""

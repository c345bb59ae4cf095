"""Models on disk: where one comes from, whether it may be loaded, and how it is kept."""

"""One config run with several settings: which, what they share, and which of them is best."""

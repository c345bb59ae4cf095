"""From a source's rows to the canonical rows that every other stage reads."""

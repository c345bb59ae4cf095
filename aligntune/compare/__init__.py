"""Runs that are over or going on, listed and held against each other. Reads, never writes."""

"""One pipeline run as one HTML file: opens offline, runs no script, asks for nothing else."""

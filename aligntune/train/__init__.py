"""Training stages: thin over TRL's trainers, exact to resume, and stopped rather than diverged."""

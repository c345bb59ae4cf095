"""Post-training pipelines for language models: schedule, resume, compare, promote."""

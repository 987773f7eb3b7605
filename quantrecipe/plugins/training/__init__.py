"""Fine-tuning of a whole model, with its weights rounded; the native backend writes what was learned."""

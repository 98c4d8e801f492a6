"""DeepSpeed engines of the phases: built, stepped, torn down, and audited."""

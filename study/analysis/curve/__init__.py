"""The difference between two arms over dataset sizes, with its intervals."""

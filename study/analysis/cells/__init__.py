"""One arm at one size: losses, costs, memory, what the search found."""

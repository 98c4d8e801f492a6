"""What the whole program rests on: errors, paths, files, URLs, numbers for people.

Anything may import it; it imports no other package of the program and knows no study.
"""

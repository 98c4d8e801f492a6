"""What the whole program rests on: errors, paths, files, URLs, numbers for people.

Every module may be imported, by anything.
It imports no other package of the program and knows no study.
"""

import sys

# `python -m` puts the working folder first, and a `torch.py` or `datasets.py` there is not meant.
if not sys.flags.safe_path:
    sys.path.append(sys.path.pop(0))

from study.cli import main

main()
